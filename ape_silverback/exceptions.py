"""Every error that a user of this package can meet.

All of them are Ape errors, so that code written for Ape catches them and ``ape`` prints them without a traceback::

    SilverbackError (ape.exceptions.ApeException)
    ├── ConfigurationError (ape.exceptions.ConfigError)   the `silverback:` section or its environment variables
    ├── EnvironmentVariableError   a variable for proxies or certificates can't be used
    ├── ResolutionError       a bot's network, account or image can't be resolved from the project
    ├── ProfileError          the profile file, or the choice of a profile or cluster
    │   └── NoClusterError        no cluster is configured
    ├── FileError             a file of `~/.silverback` can't be locked or written
    │   └── FileLocked            another process holds its lock
    ├── LocalClusterError     the local cluster can't be started, stopped or reached
    ├── BuildError            an image can't be described, built or pushed
    ├── DeployError           a plan can't be made or applied
    │   └── DeployFailed          parts of a plan failed
    ├── ChainError            a node of a chain doesn't answer, or refuses
    ├── StreamError           a payment stream isn't trusted, or can't be paid
    │   ├── TransactionRefused    a transaction changed nothing: refused before it was sent, or reverted
    │   └── StreamNotVerified     whether a payment stream is to be trusted couldn't be found out
    └── ClusterError          a request to a cluster or to the platform failed: method, URL, status
        ├── ConnectionFailed      no answer
        │   ├── ConnectionRefused     nothing listens at the address
        │   ├── NameNotResolved       the host name has no address
        │   ├── ProxyFailed           the proxy can't be reached, or refused
        │   ├── TLSFailed             the certificate or the handshake was refused
        │   ├── RequestTimeout        no answer in time
        │   └── ConnectionBroken      the connection ended before the answer was complete
        ├── RedirectRefused       a redirect to another origin, which must not get the key
        ├── LoginFailed           a login was refused, cancelled, or answered by another login's redirect
        ├── UnexpectedAnswer      an answer that the API doesn't promise
        │   ├── AnswerTooLarge        more bytes than any cluster has to tell
        │   └── TooManyPages          a list whose pages don't end
        ├── NotOffered            an extension that this cluster doesn't have
        ├── ServerError           5xx
        └── ClientError           4xx; the name that the public SDK uses
            ├── Unauthorized          401
            ├── Forbidden             403
            ├── NotFound              404
            ├── Conflict              409
            ├── ValidationFailed      422, one line a field
            └── RateLimited           429

Nothing here imports more than Ape's own exceptions: every room imports this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ape.exceptions import ApeException, ConfigError


class SilverbackError(ApeException):
    """Base of all errors of this package."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class ConfigurationError(SilverbackError, ConfigError):
    """The section, or a variable ``APE_SILVERBACK_…``, can't be used. Names file and line where they are known."""


class EnvironmentVariableError(SilverbackError):
    """An environment variable for proxies or certificates can't be used. Names the variable."""


class ResolutionError(SilverbackError):
    """A value of a bot can't be resolved from the Ape project."""


class ProfileError(SilverbackError):
    """The profile file is broken, or lacks the profile or cluster that was asked for."""


class NoClusterError(ProfileError):
    """No cluster is configured: by no option, section, environment variable or profile."""


class FileError(SilverbackError):
    """A file of ``~/.silverback`` can't be locked or written."""


class FileLocked(FileError):
    """Another process has held a lock for longer than was waited.

    Attributes:
        path: file of the lock.
        holder: who holds it, as that process wrote it; empty if it didn't.
    """

    def __init__(self, path: Path, timeout: float, holder: str = "") -> None:
        self.path = path
        self.holder = holder
        by = f" ({holder})" if holder else ""
        super().__init__(f"another process{by} has been holding {path} for {timeout:g} s; try again when it has ended")


class LocalClusterError(SilverbackError):
    """The local cluster can't be started, stopped or reached."""


class BuildError(SilverbackError):
    """A bot's image can't be described, built or pushed, or no engine is available."""


class DeployError(SilverbackError):
    """A deployment can't be planned or applied."""


class DeployFailed(DeployError):
    """Parts of a deployment failed; the rest is done.

    Attributes:
        failures: name of each bot and variable group that failed → the reason.
    """

    def __init__(self, message: str, failures: Mapping[str, str]) -> None:
        super().__init__(message)
        self.failures = dict(failures)


class ChainError(SilverbackError):
    """A node of a chain doesn't answer, or refuses.

    Attributes:
        temporary: whether the same request may succeed later: the node is overloaded, or lags behind.
    """

    def __init__(self, message: str, *, temporary: bool = False) -> None:
        super().__init__(message)
        self.temporary = temporary


class StreamError(SilverbackError):
    """A payment stream isn't trusted, or can't be paid. Names the check or the amount."""


class TransactionRefused(StreamError):
    """A transaction certainly changed nothing: it was refused before it was sent, or it reverted."""


class StreamNotVerified(StreamError):
    """A payment stream couldn't be verified, since a node or the platform didn't answer. It may well be right."""


class ClusterError(SilverbackError):
    """A request to a cluster or to the platform failed.

    Attributes:
        method: HTTP method of the request, or None when no request was built.
        url: its URL, without user info and query, so that no secret is in it.
        status: HTTP status of the answer, or None when there was none.
    """

    def __init__(
        self,
        message: str,
        *,
        method: str | None = None,
        url: str | None = None,
        status: int | None = None,
    ) -> None:
        self.method = method
        self.url = url
        self.status = status
        super().__init__(message)


class ConnectionFailed(ClusterError):
    """No answer came."""


class ConnectionRefused(ConnectionFailed):
    """Nothing listens at the address."""


class NameNotResolved(ConnectionFailed):
    """The host name has no address."""


class ProxyFailed(ConnectionFailed):
    """The proxy that the environment names can't be reached, or refused the connection."""


class TLSFailed(ConnectionFailed):
    """The certificate or the TLS handshake was refused."""


class RequestTimeout(ConnectionFailed):
    """No answer in time."""


class ConnectionBroken(ConnectionFailed):
    """The connection ended before the answer was complete."""


class RedirectRefused(ClusterError):
    """A redirect to another origin. It isn't followed: the key is for the configured origin only."""


class UnexpectedAnswer(ClusterError):
    """An answer that the API doesn't promise: HTML from a proxy, truncated JSON, wrong types."""


class AnswerTooLarge(UnexpectedAnswer):
    """An answer has more bytes, decompressed, than any cluster has to tell."""


class TooManyPages(UnexpectedAnswer):
    """A list has more pages than any cluster needs, or pages that repeat."""


class NotOffered(ClusterError):
    """The cluster doesn't have an extension that was asked for, so nothing was requested."""


class LoginFailed(ClusterError):
    """A login was refused, cancelled, ran out of time, or was answered by the redirect of another login."""


class ServerError(ClusterError):
    """The cluster failed while answering (5xx)."""


class ClientError(ClusterError):
    """The cluster refused the request (4xx)."""


class Unauthorized(ClientError):
    """The key or the session isn't accepted (401)."""


class Forbidden(ClientError):
    """The key or the session isn't allowed to do this (403)."""


class NotFound(ClientError):
    """The cluster has no such resource (404)."""


class Conflict(ClientError):
    """The request conflicts with what is on the cluster: a name is taken, or a resource is still in use (409)."""


class ValidationFailed(ClientError):
    """The cluster refused values (422).

    Attributes:
        fields: field path → what is wrong with it.
    """

    def __init__(
        self,
        message: str,
        *,
        fields: dict[str, str] | None = None,
        method: str | None = None,
        url: str | None = None,
        status: int | None = None,
    ) -> None:
        self.fields = fields or {}
        super().__init__(message, method=method, url=url, status=status)


class RateLimited(ClientError):
    """Too many requests (429)."""
