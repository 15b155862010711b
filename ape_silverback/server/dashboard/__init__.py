"""The dashboard that a cluster serves at ``/``: server-rendered pages, kept up to date by server-sent events.

There is no build step, and nothing is requested from elsewhere: what the pages load lies in ``static/``, third-party
files under ``static/vendor/`` with version, licence and hash in ``vendored.json``.
"""
