"""The dashboard's pages among themselves: what they say of themselves to the browser, and whose forms they take."""

from __future__ import annotations

from fastapi import Request

from semantic_parrot.core.errors import Forbidden

#: Nothing from elsewhere, nothing inline, in no frame; forms go to this server.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # without one, forms would not say where they come from
    "Cache-Control": "no-store",
}


def own_page_only(request: Request) -> None:
    """Raises Forbidden for a form that a page of another site has sent, or nobody's page."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin", "")
    # Browsers send the first only where they trust the connection, and the second with every form.
    own = site == "same-origin" if site is not None else origin.partition("://")[2] == request.headers.get("host")
    if not own:
        raise Forbidden("this form is for the dashboard's own pages", where="Origin")
