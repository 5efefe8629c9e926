"""Snapshots of walks and faults with syrupy: what a file says of them is what people are shown.

Knows syrupy's serialisers. Refuses to know how a walk looks (`render`). Registered by the plugin
where syrupy is.
"""

from typing import Any, get_args

import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.amber import AmberSnapshotExtension
from syrupy.extensions.amber.serializer import AmberDataSerializer, AmberDataSerializerPlugin


class WalkPlugin(AmberDataSerializerPlugin):
    """Writes a Walk with every entry that it read, and a Stop with its own line and its walk."""

    @classmethod
    def is_data_serializable(cls, data: Any) -> bool:
        """Tell whether it is a Walk or a Stop."""
        from emu import Stop, Walk

        return isinstance(data, (Walk, *get_args(Stop)))

    @classmethod
    def serialize(cls, data: Any, **options: Any) -> str:
        """Return the text of one."""
        from pagewalk.testing.report import text_of

        return AmberDataSerializer.serialize_string("\n".join(text_of(data)), **options)


class WalkSerializer(AmberDataSerializer):
    """Amber, with walks and stops as text, also inside of lists and dicts."""

    serializer_plugins = (WalkPlugin,)


class WalkSnapshotExtension(AmberSnapshotExtension):
    """For `snapshot.use_extension`, or --snapshot-default-extension."""

    serializer_class = WalkSerializer


@pytest.fixture
def walk_snapshot(snapshot: SnapshotAssertion) -> SnapshotAssertion:
    """Compare a Walk, a Stop or the text of an oops with what the test's snapshot file says.

        assert kernel.walk(page, task.mm) == walk_snapshot
        assert kernel.oops(stop) == walk_snapshot

    `pytest --snapshot-update` writes the file: `__snapshots__/test_….ambr`.
    """
    return snapshot.use_extension(WalkSnapshotExtension)
