import pytest
from transformers import PreTrainedTokenizerFast

from models.demo.folder import train_tokenizer
from models.demo.trees import TreeWriter


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer()


@pytest.fixture(scope="session")
def writer(tokenizer: PreTrainedTokenizerFast) -> TreeWriter:
    return TreeWriter(tokenizer)
