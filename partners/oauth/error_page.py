"""The page a member sees when a request cannot be followed and there is nowhere to be sent back to."""

from html import escape

_PAGE = """<!doctype html>
<html lang="zh-CN">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>无法继续 · Cannot continue</title></head>
<body><main>
<h1>无法继续</h1>
<p>这个请求已失效或不完整。请回到合作方的页面重新开始。</p>
<h1 lang="en">Cannot continue</h1>
<p lang="en">This request has ended or is incomplete. Please begin again at the partner.</p>
<p><code>{reason}</code></p>
</main></body></html>
"""


def render_error_page(reason: str) -> str:
    """The page, with a word for the partner's developers."""
    return _PAGE.format(reason=escape(reason))
