"""The bounds of what the doors take in, as options say them and as a coordinator's config has them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coordinator.config import MediaLimits

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Limits:
    """Options of `elasticmm coordinator`, by name. None: its default."""

    max_waiting: int | None = None
    max_connections: int | None = None
    max_calls: int | None = None
    max_message_mib: float | None = None
    max_media: int | None = None
    max_media_mib: float | None = None
    max_media_megapixels: float | None = None
    media_store_mib: float | None = None
    url_timeout: float | None = None  # seconds, as the next
    resume_ttl: float | None = None
    late_wait: float | None = None

    @classmethod
    def taken_from(cls, settings: dict[str, Any]) -> Limits:
        """Those among the settings, which are taken out of there."""
        return cls(**{name: settings.pop(name) for name in cls.__slots__ if name in settings})

    @property
    def words(self) -> list[str]:
        """As options."""
        given = {f"--{name.replace('_', '-')}": value for name, value in asdict(self).items()}
        return [word for name, value in given.items() if value is not None for word in (name, f"{value}")]

    def settings(self) -> dict[str, Any]:
        """What they are in a CoordinatorConfig, `media` and `resume` apart."""
        return _given(
            max_waiting=self.max_waiting,
            max_connections=self.max_connections,
            max_calls=self.max_calls,
            message_bytes=_times(self.max_message_mib, _MIB),
            media_per_request=self.max_media,
            late_wait_s=self.late_wait,
        )

    def media(self, *, allow_private_urls: bool) -> MediaLimits:
        from coordinator.config import MediaLimits

        return MediaLimits(
            allow_private_urls=allow_private_urls,
            **_given(
                media_bytes=_times(self.max_media_mib, _MIB),
                media_pixels=_times(self.max_media_megapixels, 1e6),
                store_bytes=_times(self.media_store_mib, _MIB),
                url_timeout_s=self.url_timeout,
            ),
        )


def _times(number: float | None, unit: float) -> int | None:
    return None if number is None else round(number * unit)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
