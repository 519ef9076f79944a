"""What every HTTP session of ours has in common."""

from __future__ import annotations

from requests import PreparedRequest
from requests.auth import AuthBase
from requests.auth import HTTPBasicAuth
from requests.utils import get_netrc_auth

from skyset.secrets import login_of


class HostLogin(AuthBase):
    """A session's ``auth``: the login that was given for a request's host (``skyset.secrets``), else .netrc's.

    requests takes it off again where a redirect leads to another host.
    """

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        login = login_of(request.url) or get_netrc_auth(request.url)
        if login is None:
            return request
        return HTTPBasicAuth(*(text.encode() for text in login))(request)  # as text, requests takes no more than Latin-1
