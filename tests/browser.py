"""A real browser for the pages: headless Chromium, where this machine has one."""

import shutil
from contextlib import contextmanager

import pytest
from playwright.sync_api import sync_playwright

__all__ = ["opened"]

# Without a sandbox, as containers run tests as root; and without a word to any network.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def opened(path, **context):
    """Open a file in a headless Chromium; yield its page and the list of what its console says.

    Arguments:
        path: the file.
        context: options of the browser's context, such as a color scheme.
    """
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine: install it (on Debian, apt-get install chromium)")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=browser, args=list(ARGUMENTS))
        page = running.new_context(**context).new_page()
        said = []
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("request", lambda request: request.url.startswith(("file:", "data:")) or said.append(request.url))
        page.goto(path.absolute().as_uri())
        try:
            yield page, said
        finally:
            running.close()
