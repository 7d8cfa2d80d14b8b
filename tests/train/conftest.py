import pytest

pytest.importorskip("torchvision", reason="training reads and augments images by torchvision")
pytest.importorskip("sklearn", reason="the digits that these tests train on come with scikit-learn")

from small import write_folder  # noqa: E402


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory):
    """An image folder of 64 digits to train with and 32 to test."""
    folder = tmp_path_factory.mktemp("digits")
    write_folder(folder, {"train": range(64), "val": range(64, 96)})
    return folder
