"""Logging in to the platform, staying logged in, and logging out.

``read_access_token`` is what clients need: it renews a token that is about to end. A login is the authorization code
flow of OpenID Connect with PKCE: ``oidc`` speaks to the provider, ``callback`` waits for the browser, and ``tokens``
stores the result in the files that the public SDK reads and writes too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ape_silverback.cluster.auth.tokens import (
    LOG_IN,
    MARGIN,
    Login,
    locked_tokens,
    read_login,
    token_file,
    write_login,
)
from ape_silverback.exceptions import ClusterError, FileError, ProfileError, Unauthorized, UnexpectedAnswer

if TYPE_CHECKING:
    from ape_silverback.cluster.auth.oidc import Provider

__all__ = [
    "LOG_IN",
    "Auth",
    "Logout",
    "choose_auth",
    "log_in",
    "log_in_by_hand",
    "log_out",
    "read_access_token",
    "renew_access_token",
    "who_am_i",
]

REGISTERED_PORT = 51562
"""Port of the redirect that the public SDK is registered with, for a provider that allows no other."""

LOGIN_TIMEOUT = 300.0
"""Seconds in which the user has to log in."""


@dataclass(frozen=True)
class Auth:
    """An authentication of the profile file: ``[auth.NAME]``.

    Attributes:
        name: its name, which also names the token file.
        host: address of the OpenID provider.
        client_id: our id at the provider.
    """

    name: str
    host: str
    client_id: str

    def provider(self) -> Provider:
        """Return the provider, whose description has been read.

        Raises:
            ProfileError: its address isn't a safe one.
            ClusterError: it can't be reached, or isn't what it should be.
        """
        from ape_silverback.cluster.auth.oidc import Provider

        return Provider(self.host, self.client_id)


@dataclass(frozen=True)
class Logout:
    """The result of a logout.

    Attributes:
        was_logged_in: whether there was a login to end.
        warning: why the provider may still accept the tokens; None if it doesn't.
    """

    was_logged_in: bool
    warning: str | None = None


def choose_auth(profile: str | None = None, environ: Mapping[str, str] | None = None) -> Auth:
    """Return the authentication to use: that of the named profile, else the default one, else the only one.

    Args:
        profile: option ``--profile``.
        environ: the process's environment (default: the real one), where SILVERBACK_PROFILE may name one.

    Raises:
        ProfileError: the profile isn't there or uses an API key, or none is named.
    """
    from ape_silverback.cluster.choice import choose_profile
    from ape_silverback.cluster.settings import DEFAULT_PROFILE, PlatformProfile, profile_path, read_profiles

    environ = os.environ if environ is None else environ
    if profile or environ.get("SILVERBACK_PROFILE"):
        choice = choose_profile(profile, environ=environ)
        if not isinstance(choice.profile, PlatformProfile):
            raise ProfileError(f"profile '{choice.name}' ({choice.origin}) uses an API key; no login needed")
        return _auth(choice.profile.auth)
    known = read_profiles().auth
    if not known or DEFAULT_PROFILE in known:
        return _auth(DEFAULT_PROFILE)
    if len(known) == 1:
        return _auth(next(iter(known)))
    raise ProfileError(f"pass --profile to choose where to log in: {profile_path()} has [auth] {', '.join(known)}")


def _auth(name: str) -> Auth:
    """Return an authentication by its name; the default one is the hosted platform's unless the file has it."""
    from ape_silverback.cluster.settings import (
        CURRENT_CLIENT_ID,
        DEFAULT_PROFILE,
        AuthenticationConfig,
        profile_path,
        read_profiles,
    )

    config = read_profiles().auth.get(name)
    if config is None:
        if name != DEFAULT_PROFILE:
            raise ProfileError(f"{profile_path()} has no [auth.{name}]")
        config = AuthenticationConfig(client_id=CURRENT_CLIENT_ID)
    return Auth(name, config.host, config.client_id)


def log_in(auth: Auth, show: Callable[[str], None], timeout: float = LOGIN_TIMEOUT, port: int | None = None) -> Login:
    """Log in with a browser on this machine, which is sent back to a port of the loopback interface.

    Args:
        auth: where to log in.
        show: called with the address at which the user logs in; opens the browser.
        timeout: seconds to wait for the user.
        port: port to listen on; None for a free one if the provider allows that, else the registered one.

    Raises:
        LoginFailed: the provider refused, the redirect was another login's, or none came in time.
        ClusterError: the provider can't be reached, or its answers don't verify.
    """
    from ape_silverback.cluster.auth.callback import Callback

    with auth.provider() as provider:
        callback = Callback(port or 0)
        if port is None and not provider.allows(callback.redirect_uri):
            callback.close()
            callback = Callback(REGISTERED_PORT)
        with callback:
            attempt = provider.begin(callback.redirect_uri)
            show(attempt.address)
            claims, tokens = provider.finish(attempt, callback.wait(timeout))
            return _store(auth, provider, Login(claims, tokens))


def log_in_by_hand(auth: Auth, ask: Callable[[str], str], port: int | None = None) -> Login:
    """Log in with a browser anywhere: the user enters the address at which it ends.

    Args:
        auth: where to log in.
        ask: called with the address at which the user logs in; returns the one at which the browser ended.
        port: port of the redirect, on which nothing listens; None for the registered one.

    Raises:
        LoginFailed: the provider refused, or the redirect was another login's.
        ClusterError: the provider can't be reached, or its answers don't verify.
    """
    from ape_silverback.cluster.auth.callback import redirect_uri

    with auth.provider() as provider:
        attempt = provider.begin(redirect_uri(port or REGISTERED_PORT))
        claims, tokens = provider.finish(attempt, ask(attempt.address))
        return _store(auth, provider, Login(claims, tokens))


def _store(auth: Auth, provider: Provider, login: Login) -> Login:
    """Store a login, with a name for the user if the provider has one."""
    if login.user == login.userinfo["sub"]:
        try:
            more = provider.userinfo(login.access_token, login.userinfo["sub"])
        except ClusterError:
            more = {}  # a name is good to have, but the ID token identifies the user
        login = Login({**more, **login.userinfo}, login.tokens)
    with locked_tokens(auth.name):
        write_login(auth.name, login)
    return login


def read_access_token(auth: str) -> str:
    """Return the access token of a login, renewed if it is about to end.

    Args:
        auth: name of the authentication in the profile file.

    Raises:
        Unauthorized: not logged in, the file is broken, or the login can't be renewed any more.
        ClusterError: the provider can't be reached.
    """
    login = read_login(auth)
    return (login if login.lasts(MARGIN) else _renew(_auth(auth), login)).access_token


def renew_access_token(auth: str, refused: str) -> str:
    """Return another access token than one that the platform refused; the same one where the login can't be renewed.

    Args:
        auth: name of the authentication in the profile file.
        refused: the token that was refused.

    Raises:
        Unauthorized: not logged in, or the login can't be renewed any more.
        ClusterError: the provider can't be reached.
    """
    login = read_login(auth)
    return (_renew(_auth(auth), login) if login.access_token == refused else login).access_token


def _renew(auth: Auth, login: Login) -> Login:
    """Renew a login, once for all processes: a refresh token that is used twice may end it."""
    if login.refresh_token is None:
        if login.lasts():
            return login
        raise Unauthorized(f"the login ({auth.name}) has expired; {LOG_IN} again")
    with locked_tokens(auth.name):
        there = read_login(auth.name)
        if there.access_token != login.access_token and there.lasts():
            return there  # another process or thread was quicker
        with auth.provider() as provider:
            subject = there.userinfo.get("sub")
            claims, tokens = provider.refresh(there.refresh_token or login.refresh_token, subject)
        kept = {name: value for name, value in there.tokens.items() if name not in ("expires_at", "expires_in")}
        renewed = Login({**there.userinfo, **claims}, {**kept, **tokens})
        write_login(auth.name, renewed)
        return renewed


def who_am_i(auth: Auth) -> Login:
    """Return the login, verified with the provider's keys and renewed if it is about to end.

    Raises:
        Unauthorized: not logged in, or what is stored isn't the provider's.
        ClusterError: the provider can't be reached.
    """
    login = read_login(auth.name)
    if not login.lasts(MARGIN):
        login = _renew(auth, login)
    with auth.provider() as provider:
        keys = provider.keys()
        try:
            claims = provider.verify(login.id_token or "", keys, when_issued=True)
        except UnexpectedAnswer as error:
            raise Unauthorized(
                f"the login stored in {token_file(auth.name)} can't be trusted: {error}; {LOG_IN} again"
            ) from None
    return Login({**login.userinfo, **claims}, login.tokens)


def log_out(auth: Auth) -> Logout:
    """Delete the tokens here, and revoke them at the provider.

    Raises:
        FileError: the file can't be removed.
    """
    file = token_file(auth.name)
    if not file.exists():
        return Logout(was_logged_in=False)
    warning = None
    with locked_tokens(auth.name):
        try:
            login = read_login(auth.name)
            with auth.provider() as provider:
                if login.refresh_token:
                    provider.revoke(login.refresh_token, "refresh_token")
                provider.revoke(login.access_token, "access_token")
        except (ClusterError, FileError, ProfileError) as error:
            warning = str(error)
        finally:
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise FileError(f"{file}: can't be removed: {error.strerror}") from None
    return Logout(was_logged_in=True, warning=warning)
