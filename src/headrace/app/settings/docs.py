"""``docs/settings.md`` from the table of settings: ``python -m headrace.app.settings.docs > docs/settings.md``."""

from __future__ import annotations

import sys

from headrace.app.settings.keys import GROUPS, Key

_HEAD = """\
# Settings of `headrace serve`

<!-- Made by `python -m headrace.app.settings.docs > docs/settings.md`; a test keeps it in sync. Do not edit. -->

Every setting has one name. In `headrace.yaml` dots are nested keys, in the environment they are two underscores:
`batching.max_batch_size` is `HEADRACE_BATCHING__MAX_BATCH_SIZE`.

**Precedence.** A flag wins over an environment variable, which wins over the file, which wins over the default. A flag
or a variable wins over the whole file, also over what stands under an endpoint; within the file the settings under an
endpoint win over the top level.

**The file** is `headrace.yaml` in the working directory, or the one that `--config` or `HEADRACE_CONFIG` names.
Relative paths in it count from its folder. Unknown keys are errors, and errors give line and column.

**In an editor** with a YAML language server keys are completed and checked while one writes, when the file begins with

```yaml
# yaml-language-server: $schema=headrace.schema.json
```

The schema (JSON Schema 2020-12) is [headrace.schema.json](headrace.schema.json); `headrace schema` prints that of the
installed version, and a running server has it at `/api/v1/schema` of its management port, which may stand there too.
What no schema can say (does a rule name a deployment of the endpoint?) `headrace plan` and `headrace serve` check.

```yaml
port: 8000
replicas: 2                     # for every endpoint below that says nothing else
batching: {max_batch_size: 32}
trust: [sha256:0f3a…]

endpoints:
  fraud: {model: fraud.onnx}    # short form
  pricer:
    deployments:
      main:
        model: pricer.py:Pricer
        threads: 2
        timeout: 500ms
        resources: {cpu: 1, memory: 2GiB}
        batching: exact         # short for {mode: exact}

models: [churn.ubj, team/risk=risk.onnx]   # more models, with the settings of the top level
```

**Several deployments** of one endpoint share its requests:

```yaml
endpoints:
  fraud:
    traffic: {champion: 95, challenger: 5}     # weights, in any unit
    sticky: header:x-user-id                   # or body:FIELD: the same value goes to the same deployment
    rules:                                     # the first that fits decides; without equals or in: any value
      - {when: header:x-plan, equals: gold, deployment: challenger}
      - {when: body:country, in: [DE, AT], deployment: challenger}
    overrides: [X-Headrace-Deployment]         # headers in which a request may name its deployment
    deployments:
      champion: {model: a.onnx, replicas: 2}
      challenger: {model: b.onnx, version: 7}
```

A request goes by, in this order: `/versions/V` in its path, an override, the first rule that fits, its sticky value,
chance by the weights. `overrides` may list `X-Headrace-Deployment`, `X-Amzn-SageMaker-Target-Variant` and
`azureml-model-deployment`; one that is not listed is refused with 400, one that names nobody with 404. Metadata of gRPC
are headers. `body:FIELD` is a parameter of the request or the first element of the input of that name: rows of one
request stay together. Answers carry `X-Headrace-Deployment`. A deployment that is not ready takes no traffic by
weights, rules or sticky values while another one can; its share falls to the others until it is back.

**Fallbacks** answer when the chosen deployment fails, is late or refuses; they are tried in order:

```yaml
endpoints:
  fraud:
    traffic: {champion: 100}
    fallback:
      - {deployment: rules}                    # another deployment of the endpoint
      - {constant: {score: 0.5}}               # every row gets these outputs; no model runs
    deployments: {champion: {model: a.onnx}, rules: {model: rules.py}}
```

Answers of a fallback carry `X-Headrace-Fallback`. There is none for callers' errors, after a first chunk, for a
request that names its version or deployment, and where the first attempt may have run and `idempotent` is false. Second
attempts after one that may have run are paid from the retry budget (10 % of traffic). A deployment of which half of the
last 20 requests failed is not asked for 5 seconds, then by one request at a time.

**Shadows** compute a share of the answered requests again, for comparison; callers never see their answers:

```yaml
endpoints:
  fraud:
    traffic: {champion: 100}
    shadow: {next: 10}                         # percent; a shadow takes no traffic of its own
    deployments: {champion: {model: a.onnx}, next: {model: b.onnx}}
```

A request is mirrored after its answer has been sent, and only while the shadow is idle and nobody waits for the live
deployment; what finds no place is dropped and counted. On Linux a deployment that is only mirrored to computes when
nobody else wants a processor (`SCHED_IDLE`), so that callers do not notice it; on a busy machine its times contain
that waiting. Given traffic, it gets fresh replicas that share as the others do. Streams and answers of fallbacks are
not mirrored. The management API shows agreement, greatest differences, compute times and the latest disagreements of
each shadow; `/metrics` has `headrace_shadow_requests_total`, `headrace_shadow_difference_max` and
`headrace_shadow_compute_seconds_total`.

**Rollouts** of an endpoint go as its `rollout` says, whoever begins them: `follow: rollout`,
`headrace rollout start` without options, the API ([rollouts.md](rollouts.md)):

```yaml
endpoints:
  fraud:
    model: fraud@champion
    follow: rollout                            # when the alias moves, a rollout begins
    rollout:
      canary: 5,50                             # or linear: 10/2m, or blue_green: true
      shadow_first: true
      bake: 5m                                 # also: final_bake, max_step
      analysis: {latency: {margin: 1.1}}       # as in the file of --analysis
```

**Objectives** say what callers of an endpoint are promised. Rollouts are judged by them
([rollout-analysis.md](rollout-analysis.md)), `headrace endpoints` and the management API show them, and so do the
metrics `headrace_slo_latency_seconds` and `headrace_slo_error_rate`, so that alerts need no copy of the numbers.
Headrace itself alerts nobody yet.

```yaml
endpoints:
  fraud:
    model: fraud.onnx
    slo: {p99_ms: 50, error_rate: 0.001}       # 99 % within 50 ms; at most one in 1,000 fails; one of both is enough
```

```yaml
# Prometheus
- alert: SloErrorRate
  expr: >
    sum by (model) (rate(headrace_requests_total{outcome=~"model_error|deadline_exceeded|bug"}[10m]))
      / sum by (model) (rate(headrace_requests_total[10m])) > on (model) headrace_slo_error_rate
- alert: SloLatency
  expr: >
    histogram_quantile(0.99, sum by (model, le) (rate(headrace_request_seconds_bucket{stage="total"}[10m])))
      > on (model) headrace_slo_latency_seconds
```

`replicas` is a number: bounds (`{min: 1, max: 4}`) are refused, as nothing scales by itself
yet; `headrace scale` does by hand.

**Requests of different lengths** share batches where padding is declared; otherwise only requests of equal shapes do.
Declare it only for a model whose answers do not depend on padding, such as one with an attention mask:

```yaml
endpoints:
  text:
    model: encoder.onnx
    batching:
      pad: {input_ids: 0, attention_mask: 0}   # input to value; for every input that has the dimension
      buckets: [16, 32, 64, 128]               # default: powers of two from 16 to 4096
      dims: {scores: tokens, input_ids: tokens, attention_mask: tokens}   # only where the model has no names for them
```

Requests whose sizes fall between the same buckets go together and are padded to the longest of their batch; a lone
request is not padded, one that is larger than the largest bucket goes by its exact shape. Every caller gets outputs of
its own size: an output is cut back along the dimensions that have the name of a padded one, by the symbolic names of an
ONNX model or by `dims` (all dimensions after the rows, by comma). A model for which that is not certain does not load,
and the reason says what to declare. A class derived from `headrace.Model` may have `pad`, `buckets` and `dims` itself,
beside `batchable`; settings win. With `cost: elements` or `bytes` a request counts with the size of its bucket.

Models that bring no version get the first free numbers, in order; `version` gives one, and of a folder with several
versions it chooses. Versions of an endpoint differ.

Models typed on the command line replace those of the file; one whose name is an endpoint of the file keeps the
settings that stand there. `HEADRACE_MODELS` does the same (comma-separated).

**Values.** TIME: `30` (seconds), `30s`, `500ms`, `2m`, `1h`. SIZE: a number of bytes, `64MiB`, `1GB`. Lists in the
environment are comma-separated, options are `name=value` pairs. A flag without a value, such as `--watch`, also has
the form `--no-watch`.

*per endpoint* marks the settings that may also stand under an endpoint or deployment.
"""


def render() -> str:
    """The whole page."""
    parts = [_HEAD]
    for title, keys in GROUPS.items():
        parts.append(f"\n## {title}\n\n| key | value | default | flag | environment | |\n|---|---|---|---|---|---|\n")
        parts.extend(_row(key) for key in keys)
    return "".join(parts)


def _row(key: Key) -> str:
    value = "true, false" if key.kind.switch else key.kind.metavar
    default = f"`{text}`" if (text := key.show_default()) else ""
    flag = f"`{key.flag}`" if key.flag else ""
    scope = " *per endpoint*" if key.per_deployment else ""
    return f"| `{key.name}` | {value} | {default} | {flag} | `{key.variable}` | {key.help}{scope} |\n"


if __name__ == "__main__":
    sys.stdout.write(render())
