"""Send requests elsewhere."""

from soth_mitm import HandlerDecision, InterceptHandler, RawRequest, Upstream
from soth_mitm.rules.matching import Url


class MapRemote(InterceptHandler):
    """Sends the requests for a URL elsewhere."""

    def __init__(self, url: str, to: str | Upstream, path: str | None) -> None:
        self._url = Url.parse(url)
        self._to = to
        self._path = path
        # what is wrong is said now
        self._elsewhere = HandlerDecision.forward(to=to, path=None if path is None else path.replace("*", ""))
        if path is not None and path.count("*") > self._url.path.groups:
            raise ValueError(f"path: `{path}` has more `*` than the url")

    def on_request(self, request: RawRequest) -> HandlerDecision:
        """Send the request elsewhere if it is for the URL."""
        stands_for = self._url.match(request)
        if stands_for is None:
            return HandlerDecision.ALLOW
        if self._path is None:
            return self._elsewhere
        first, *rest = self._path.split("*")
        path = first + "".join(f"{found}{part}" for found, part in zip(stands_for, rest, strict=False))
        mark, query = request.path.partition("?")[1:]
        return HandlerDecision.forward(to=self._to, path=path if "?" in path else f"{path}{mark}{query}")


def map_remote(url: str, to: str | Upstream, *, path: str | None = None) -> InterceptHandler:
    """Send the requests for `url` to `to`, as in `HandlerDecision.forward`: `"host:port"`, `"https://host"` or an `Upstream`.

    `path` replaces the path; a `*` in it stands for what the `*` of the url stands for, from the left. The query stays unless `path` has
    one. The policy judges where it goes, as for every redirect.

    >>> from soth_mitm import rules
    >>> handler = rules.map_remote("https://api.example.com/v1/*", "http://127.0.0.1:8000", path="/api/*")
    """
    return MapRemote(url, to, path)
