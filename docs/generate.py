"""Writes the documents that the code itself decides: errors.md, configuration.md, api-ids.md; `--check` only compares."""

import importlib
import pkgutil
import re
import sys
from pathlib import Path

import gateway
import kernel
import partners
import points
from gateway.api_ids import REGISTER, add_lines, find_api_id, new_lines, routes_with_level
from gateway.app import ROUTES
from kernel.errors import Refusal
from kernel.problem import catalogue, status_of
from kernel.settings import describe
from partners.mobile.scopes import MOBILE_SCOPES
from partners.oauth.scopes import SCOPES

HERE = Path(__file__).parent

ERRORS = (
    "Every refusal is an `application/problem+json` document (RFC 9457) with a stable `code`. "
    "`type` is `{base}/problems/{code}` and answers with the sentence below. After a refusal nothing has changed; "
    "only `outcome_unknown` leaves that open: repeat the call with the same `Idempotency-Key`."
)


def our_refusals() -> list[type[Refusal]]:
    """Every refusal of every module, whoever has imported what; none that a test made up."""
    for package in (gateway, kernel, partners, points):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    roots = {"gateway", "kernel", "partners", "points"}
    return [refusal for refusal in catalogue() if refusal.__module__.partition(".")[0] in roots]


def errors() -> str:
    """The catalogue of problem codes."""
    lines = [
        "# Errors",
        "",
        ERRORS,
        "",
        "The OAuth endpoints answer as RFC 6749 §5.2 says: `error` and `error_description`.",
        "",
        "| status | code | meaning |",
        "|---|---|---|",
    ]
    lines += [
        f"| {status_of(refusal)} | `{refusal.code}` | {refusal.sentence()} |" for refusal in our_refusals()
    ]
    return "\n".join(lines) + "\n"


def configuration() -> str:
    """Every setting, and every scope."""
    lines = [
        "# Configuration",
        "",
        "Settings are environment variables, read once at start. An unknown `TESSERA_` variable stops the start.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    lines += [f"| `{name}` | {default} | {meaning} |" for name, default, meaning in describe()]
    lines += ["", "# Scopes", "", "| scope | meaning | 含义 |", "|---|---|---|"]
    lines += [f"| `{name}` | {sentence.en} | {sentence.zh} |" for name, sentence in SCOPES.items()]
    lines += ["", "# Scopes of the mobile API", "", "| scope of the app | meaning | 含义 |", "|---|---|---|"]
    lines += [f"| `{name}` | {label.en} | {label.zh} |" for name, label in MOBILE_SCOPES.items()]
    return "\n".join(lines) + "\n"


def api_ids() -> str:
    """Every API with its level and unified identifier."""
    lines = [
        "# API identifiers",
        "",
        "JR/T 0185-2020 gives every API a level (A1: products and services, A2: funds and accounts) and a unified identifier,",
        "here with the sandbox's bank code; `/openapi.json` has both as `x-security-level` and `x-u-api-id`.",
        "",
        "| u_api_id | level | call | what it does |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| `{api_id.written('000000')}` | {route.level} | `{route.method} {_plain(route.path)}` | {route.sentence} |"
        for route in routes_with_level(ROUTES)
        if (api_id := find_api_id(route.method, route.path)) is not None
    ]
    return "\n".join(lines) + "\n"


def _plain(path: str) -> str:
    return re.sub(r"\{(\w+):\w+\}", r"{\1}", path)


def main() -> int:
    """Write all, or with `--check` say which is stale."""
    stale = []
    if new := new_lines(routes_with_level(ROUTES)):
        if "--check" in sys.argv:
            stale.append(REGISTER.name)
        else:
            add_lines(new)
    documents = {"errors.md": errors(), "configuration.md": configuration(), "api-ids.md": api_ids()}
    for name, text in documents.items():
        path = HERE / name
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
    if stale:
        sys.stderr.write(f"stale: {', '.join(stale)}; run `make docs`\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
