"""What a file is, from its first bytes: the formats Headrace does not serve, so that refusals can name them."""

from __future__ import annotations

from headrace.core import errors

SUPPORTED = (
    "ONNX, scikit-learn (skops, joblib, pickle), XGBoost (json, ubj), LightGBM (txt), MLflow folders,"
    " TorchServe archives (.mar) and Python files with a headrace.Model"
)

_MAGICS: tuple[tuple[bytes, int, str], ...] = (
    (b"\x89HDF\r\n\x1a\n", 0, "a Keras or other HDF5 file"),
    (b"GGUF", 0, "a GGUF file (llama.cpp)"),
    (b"ggml", 0, "an old llama.cpp file"),
    (b"lmgg", 0, "an old llama.cpp file"),
    (b"TFL3", 4, "a TensorFlow Lite model"),
    (b"ORTM", 4, "an ONNX Runtime .ort file; serve the .onnx it was made from"),
    (b"CBM1", 0, "a CatBoost model; save it with format='onnx' or as a pickle of the estimator"),
    (b"ptrt", 0, "a TensorRT engine"),
    (b"ftrt", 0, "a TensorRT engine"),
    (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19", 0, "a PyTorch file; export it with torch.onnx.export"),
    (b"binf", 0, "an XGBoost model in the old binary format; load it and save it as .ubj with save_model"),
    (b"\x93NUMPY", 0, "a numpy array, not a model"),
    (b"PAR1", 0, "a Parquet table, not a model"),
    (b"\x7fELF", 0, "a program"),
    (b"#!", 0, "a script"),
    (b"%PDF", 0, "a PDF document"),
    (b"\x04\x22\x4d\x18", 0, "an lz4-compressed joblib pickle; save it with compress='zlib' or uncompressed"),
    (b"\x28\xb5\x2f\xfd", 0, "a zstd-compressed file"),
    (b"Rar!", 0, "an archive"),
    (b"7z\xbc\xaf", 0, "an archive"),
    (b"ustar", 257, "a tar archive; unpack it first"),
)

_XML = ((b"<net ", "an OpenVINO model"), (b"<PMML", "a PMML model"), (b"<html", "a web page, not a model"))


def refuse_foreign(head: bytes) -> None:
    """Raise Unsupported when the first bytes are those of a known format that is not served."""
    for magic, offset, what in _MAGICS:
        if head.startswith(magic, offset):
            raise unsupported(what)
    if _is_safetensors(head):
        raise unsupported("a safetensors file (weights without a model)")
    if head.startswith(b"version https://git-lfs"):
        raise errors.InvalidInput("this is a Git LFS pointer, not the model itself; fetch it with `git lfs pull`")
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:512].lower()
    if start.startswith((b"<?xml", b"<")):
        known = next((what for tag, what in _XML if tag.lower() in head.lower()), "an XML file")
        raise unsupported(known)


def unsupported(what: str) -> errors.Unsupported:
    return errors.Unsupported(f"this is {what}, which is not supported; supported are {SUPPORTED}")


def unknown(head: bytes) -> errors.Unsupported:
    """The refusal for bytes of no known format."""
    try:
        head[:256].decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < 250:
            return errors.Unsupported(f"no known model format begins with {head[:8].hex(' ')}; supported: {SUPPORTED}")
    lines = head[:60].decode("utf-8", "replace").splitlines()
    return errors.Unsupported(
        f"this is a text of no known model format ({lines[0] if lines else ''!r}); supported: {SUPPORTED}"
    )


def zip_content(names: frozenset[str]) -> str:
    """What a zip archive is, by the names in it (it is not skops)."""
    last = {name.rpartition("/")[2] for name in names}
    if "data.pkl" in last:
        return "a TorchScript file" if "constants.pkl" in last else "a PyTorch file; export it with torch.onnx.export"
    if "model.weights.h5" in last:
        return "a Keras model"
    if any(name.startswith("MAR-INF/") for name in names):
        return "a TorchServe archive (.mar) without its MAR-INF/MANIFEST.json"
    if "model.ini" in last:
        return "an H2O MOJO"
    if names and all(name.endswith(".npy") for name in names):
        return "a numpy archive, not a model"
    return "a zip archive; unpack it first"


def folder_content(names: frozenset[str]) -> str | None:
    """What a folder is when it is a model of a framework that is not served."""
    if names & {"saved_model.pb", "saved_model.pbtxt"}:
        return "a TensorFlow SavedModel"
    if "config.json" in names and any(
        name.endswith((".safetensors", ".gguf")) or name.startswith(("pytorch_model", "tf_model", "model.safetensors"))
        for name in names
    ):
        return "a Hugging Face model folder"
    if "Manifest.json" in names and "Data" in names:
        return "a Core ML package"
    if "MAR-INF" in names:
        return "an unpacked TorchServe archive; make a .mar of it with torch-model-archiver"
    return None


def _is_safetensors(head: bytes) -> bool:
    return len(head) > 10 and head[8:10] == b'{"' and 2 <= int.from_bytes(head[:8], "little") < 1 << 27
