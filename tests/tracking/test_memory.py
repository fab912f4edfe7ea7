"""The store in memory: what its conformance suite cannot force threads to do."""

from lrp_celery.tracking.memory import MemoryTrackingStore


def test_trk_14_a_write_between_reading_and_writing_is_not_lost(monkeypatch):
    store = MemoryTrackingStore()
    store.record_enqueue("a", "t")
    read = store._find

    def read_and_be_overtaken(call_id, run):
        found = read(call_id, run)
        monkeypatch.setattr(store, "_find", read)
        assert store.record_terminal("a", "failed")
        return found

    monkeypatch.setattr(store, "_find", read_and_be_overtaken)
    assert not store.record_terminal("a", "succeeded")
    assert store.get_status("a").status == "failed"
