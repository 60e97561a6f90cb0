"""The state and the settings of the fleet row are what the row says they are."""

import onnx
import pytest

from benchmarks.fleet import stock
from headrace.app.settings import file as settings_file
from headrace.app.state.registry_state import open_registry
from tests import models


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return models.onnx_classifier(tmp_path_factory.mktemp("model"))


def test_a_relabelled_model_is_another_file_and_the_same_model(classifier):
    content = classifier.read_bytes()
    first, second = stock.relabelled(content, "fraud-0001"), stock.relabelled(content, "fraud-0002")
    assert len({content, first, second}) == 3
    loaded, original = onnx.load_from_string(first), onnx.load_from_string(content)
    assert loaded.doc_string == "fraud-0001"
    assert loaded.graph == original.graph


@pytest.mark.parametrize("name", ["x" * 128, "prüfung"])
def test_a_label_that_one_byte_cannot_measure_is_refused(name):
    with pytest.raises(ValueError):
        stock.relabelled(b"", name)


def test_a_filled_registry_holds_every_model_and_a_file_for_each_that_is_served(tmp_path, classifier):
    location = stock.fill_registry(tmp_path / "state", classifier, tmp_path / "files", models=7, served=3)
    with open_registry(location) as state:
        assert [found.model for found in state.registry.models()] == [stock.name_of(number) for number in range(7)]
        assert len(state.registry.blobs()) == 3
        version = state.registry.resolve("fraud-0002@1")
        (file,) = version.draft.files
        assert file.digest == version.draft.artifact.digest
        assert (tmp_path / "files" / "fraud-0002.onnx").stat().st_size == file.size


def test_the_settings_name_the_endpoints_and_say_which_are_lazy(tmp_path):
    parsed = settings_file.parse_settings(stock.settings_text(5, 2), tmp_path / "headrace.yaml")
    lazy = {name: entry.deployments[0].values.get("lazy", False) for name, entry in parsed.endpoints.items()}
    assert lazy == {stock.name_of(number): number >= 2 for number in range(5)}
    assert parsed.endpoints["fraud-0003"].deployments[0].source.path == "fraud-0003@1"


def test_packed_settings_share_workers(tmp_path, classifier):
    files = stock.copies(classifier, tmp_path / "files", 3)
    parsed = settings_file.parse_settings(stock.packed_text(files), tmp_path / "headrace.yaml")
    assert parsed.values["isolation"] == "packed"
    assert [entry.deployments[0].source.path for entry in parsed.endpoints.values()] == [str(file) for file in files]
