"""A user with a browser, for a provider's development forms: ``python browser.py ADDRESS NAME [deny]``.

Opens the address, logs in as the name, agrees (or not), and follows every redirect, the last one to us.
"""

from __future__ import annotations

import re
import sys
from urllib.parse import urljoin

import httpx


def log_in(address: str, name: str, deny: bool = False) -> str:
    """Log in, and give the address that the provider sends the browser back to, without going there."""
    forms = {"login": {"prompt": "login", "login": name, "password": "any"}, "consent": {"prompt": "consent"}}
    with httpx.Client() as client:
        answer = client.get(address)
        for _ in range(20):
            if answer.is_redirect:
                there = urljoin(str(answer.request.url), answer.headers["Location"])
                if "/callback?" in there:
                    return there
                answer = client.get(there)
                continue
            answer.raise_for_status()
            if deny:
                answer = client.get(f"{answer.request.url}/abort")
                continue
            found = re.search(r'action="([^"]+)".*?name="prompt" value="(\w+)"', answer.text, re.DOTALL)
            assert found, answer.text
            answer = client.post(urljoin(str(answer.request.url), found[1]), data=forms[found[2]])
    raise AssertionError("too many redirects")


if __name__ == "__main__":
    redirect = log_in(sys.argv[1], sys.argv[2], deny="deny" in sys.argv[3:])
    page = httpx.get(redirect)
    print(page.status_code, re.findall("<h1>(.*)</h1>", page.text), file=sys.stderr)
