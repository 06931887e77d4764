"""How answers are returned: what may pass is tried again with growing pauses, what is final is kept."""

import itertools
from types import SimpleNamespace

import pytest

pytest.importorskip("pynetdicom")
pytest.importorskip("highdicom")

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import ComprehensiveSRStorage, SegmentationStorage, StorageCommitmentPushModel, Verification
from serving_cases import Clock
from test_dicom_node import QUICK, DicomNode, Receiver, found_in, radiograph, send, wait_for
from test_dicom_queue import answer, come

from xray.serving.dicom_accepted import Counts
from xray.serving.dicom_connections import Limits
from xray.serving.dicom_peers import Peer
from xray.serving.dicom_queue import Queue
from xray.serving.dicom_returning import Returning
from xray.serving.dicom_sending import Sender
from xray.serving.dicom_statuses import (
    NO_ECHO,
    Outcome,
    Verdict,
    outcome_of,
    outcome_of_association,
    outcome_of_commitment,
    pause_of,
)

LIMITS = Limits(attempts=5, first_wait=10.0, last_wait=60.0, commitment_seconds=100.0)


@pytest.mark.parametrize(
    ("verdict", "statuses"),
    [
        # PS3.4 table B.2-1 and PS3.7 annex C.
        (Verdict.TAKEN, (0x0000, 0x0001, 0x0111, 0xB000, 0xB006, 0xB007)),
        (Verdict.PASSING, (0xA700, 0xA701, 0xA7FF, 0x0110, 0x0124, 0x0210, 0x0213, None)),
        (Verdict.FINAL, (0xA900, 0xA9FF, 0xC000, 0xCFFF, 0x0106, 0x0117, 0x0118, 0x0122, 0x0211, 0x0212)),
    ],
)
def test_what_statuses_mean(verdict, statuses):
    assert {outcome_of(status).verdict for status in statuses} == {verdict}


@pytest.mark.parametrize(
    ("source", "reason", "why"),
    [(3, 1, "congestion"), (3, 2, "limit"), (1, 3, "--dicom-aet"), (1, 7, "--dicom-return"), (2, 9, "reason 9")],
)
def test_rejections_are_told_in_words(source, reason, why):
    answered = SimpleNamespace(result_source=source, diagnostic=reason)
    rejected = SimpleNamespace(is_rejected=True, is_aborted=False, acceptor=SimpleNamespace(primitive=answered))
    outcome = outcome_of_association(rejected)
    assert outcome.verdict == Verdict.PASSING
    assert outcome.is_peer
    assert why in outcome.why


def test_pauses_grow_to_a_longest_one_and_differ_by_chance():
    assert [pause_of(n, 1.0, 600.0, lambda: 1.0) for n in (1, 2, 3, 10, 11, 10**6)] == [1, 2, 4, 512, 600, 600]
    assert pause_of(3, 1.0, 600.0, lambda: 0.0) == 2


class Peers:
    """Stands for a Sender: gives each object the next of the statuses."""

    def __init__(self, *statuses):
        self.statuses, self.sent, self.peer = list(statuses), [], Peer("PACS", "127.0.0.1", 9)

    def send(self, answers, done, begin=None, report=None):
        taken = []
        for one in answers:
            self.sent.append(one.uid)
            outcome = outcome_of(self.statuses.pop(0))
            taken += [one] if outcome.verdict == Verdict.TAKEN else []
            done(one, outcome)
        if begin is not None and taken:
            self.transaction = begin(taken)
            return outcome_of_commitment(self.statuses.pop(0))
        return None


@pytest.fixture
def clock():
    return Clock(1e9)


@pytest.fixture
def queue(tmp_path, clock):
    opened = Queue(tmp_path / "queue", clock)
    come(opened, "1.1")
    answer(opened, opened.next_work(), "2.1")
    yield opened
    opened.close()


def returning(queue, *statuses, commits=False):
    peers = Peers(*statuses)
    return Returning(queue, peers, LIMITS, Counts(), commits), peers


def test_what_may_pass_is_tried_again_later_each_time_later(queue, clock):
    work, peers = returning(queue, 0xA700, 0x0110, 0x0213, 0x0000)
    pauses = []
    for _ in range(3):
        work.step()
        pauses.append(queue.seconds_to_next())
        work.step()
        clock.now += pauses[-1]
    assert [5 <= pauses[0] <= 10, 10 <= pauses[1] <= 20, 20 <= pauses[2] <= 40] == [True] * 3
    work.step()
    assert peers.sent == ["2.1"] * 4
    assert queue.status()["answered"] == 1


def test_what_never_passes_fails_at_last_and_is_kept(queue, clock, caplog):
    work, peers = returning(queue, *[0xA700] * 5)
    for _ in range(5):
        work.step()
        clock.now += 60
    work.step()
    assert len(peers.sent) == 5
    assert queue.status()["failed"] == 1
    assert "answer 1 (2.1) has failed: PACS does not take it (status A700, out of resources, 5 times)" in caplog.text
    assert len(list((queue.folder / "answers").iterdir())) == 1


def test_what_is_final_fails_at_once(queue):
    work, peers = returning(queue, 0xC001)
    work.step()
    work.step()
    assert peers.sent == ["2.1"]
    assert work._counts.failed == queue.status()["failed"] == 1


def test_where_the_other_node_is_away_all_wait_together(queue):
    work, _ = returning(queue, *[None] * 4)
    pauses = [work.step() for _ in range(4)]
    for number, pause in enumerate(pauses):
        assert min(60, 10 * 2**number) / 2 <= pause <= min(60, 10 * 2**number)


def report_of(transaction, kept=(), missing=()):
    about = Dataset()
    about.TransactionUID = transaction
    for keyword, uids in (("ReferencedSOPSequence", kept), ("FailedSOPSequence", missing)):
        items = []
        for uid in uids:
            item = Dataset()
            item.ReferencedSOPInstanceUID = uid
            if keyword == "FailedSOPSequence":
                item.FailureReason = 0x0112
            items.append(item)
        setattr(about, keyword, items)
    return SimpleNamespace(event_information=about)


def test_an_answer_is_kept_until_it_is_committed(queue):
    work, peers = returning(queue, 0x0000, 0x0000, commits=True)
    work.step()
    assert queue.status()["uncommitted"] == 1
    assert len(list((queue.folder / "answers").iterdir())) == 1
    assert work.report(report_of("1.2.3", kept=["2.1"])) == 0x0112
    assert work.report(report_of(peers.transaction, kept=["9.9"])) == 0
    assert queue.status()["uncommitted"] == 1
    assert work.report(report_of(peers.transaction, kept=["2.1"])) == 0
    assert queue.status()["answered"] == 1
    assert list((queue.folder / "answers").iterdir()) == []
    assert work.report(SimpleNamespace(event_information=Dataset())) == 0x0110


def test_what_is_not_committed_is_sent_again(queue, clock):
    work, peers = returning(queue, 0x0000, 0x0000, 0x0000, 0x0000, 0x0000, 0x0213, 0x0000, 0x0000, commits=True)
    work.step()
    work.report(report_of(peers.transaction, missing=["2.1"]))
    clock.now += 60
    work.step()
    assert queue.status()["uncommitted"] == 1
    # Nobody reports on it in time.
    clock.now += 101
    work.step()
    clock.now += 60
    # The other node cannot be asked now.
    work.step()
    assert queue.status()["uncommitted"] == 0
    clock.now += 60
    work.step()
    work.report(report_of(peers.transaction, kept=["2.1"]))
    assert peers.sent == ["2.1"] * 4
    assert queue.status()["answered"] == 1


def test_where_no_commitment_is_offered_answers_are_returned_and_that_is_said_once(caplog):
    with Receiver() as pacs:
        peer = Peer("PACS", "127.0.0.1", pacs.port)
        with DicomNode(found_in, peer, 0, limits=QUICK, commits=True) as node:
            for number in (1, 2):
                assert send(node, radiograph()) == 0x0000
                wait_for(lambda many=2 * number: node.status()["unconfirmed"] == many)
            assert node.status() | {"failed": 0, "uncommitted": 0, "returned": 4, "unconfirmed": 4} == node.status()
        assert len(pacs.kept) == 4
    assert caplog.text.count("it offers no storage commitment") == 1


@pytest.mark.parametrize("status", [0x0112, 0x0118, 0x0122, 0x0123, 0x0211])
def test_a_node_that_knows_no_commitment_after_all_keeps_what_it_has_stored(queue, status):
    work, peers = returning(queue, 0x0000, status, commits=True)
    work.step()
    assert peers.sent == ["2.1"]
    assert queue.status()["answered"] == work._counts.unconfirmed == 1


def test_an_answer_whose_file_is_damaged_or_gone_keeps_nothing_back():
    with Receiver() as pacs, DicomNode(found_in, Peer("PACS", "127.0.0.1", 9), 0, limits=QUICK) as node:
        assert send(node, radiograph()) == 0x0000
        wait_for(lambda: node.status()["returning"] == 2)
        first, second = sorted((node.folder / "answers").iterdir())
        first.unlink()
        second.write_bytes(b"no DICOM file")
        node._returning._sender = Sender(Peer("PACS", "127.0.0.1", pacs.port), "XRAY", QUICK)
        wait_for(lambda: node.counts.failed == 2)
        assert send(node, radiograph()) == 0x0000
        wait_for(lambda: node.counts.returned == 2)


class Archive(Receiver):
    """A node that commits to what it stores. how: "here", on the same association, or "later", on one of its own."""

    def __init__(self, how, node_port=None):
        self.kept, self.status, self.how, self.node_port, self.asked = [], 0x0000, how, node_port, []
        ae = AE(ae_title="PACS")
        for storage in (ComprehensiveSRStorage, SegmentationStorage, Verification, StorageCommitmentPushModel):
            ae.add_supported_context(storage)
        handlers = [(evt.EVT_C_STORE, self.keep), (evt.EVT_N_ACTION, self.act), (evt.EVT_RELEASED, self.tell)]
        self.server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port, self.reports = self.server.server_address[1], []

    def act(self, event):
        about = event.action_information
        self.asked.append(about)
        if self.how == "here":
            import threading

            threading.Timer(0.2, self.report, [event.assoc, about]).start()
        else:
            self.reports.append(about)
        return 0x0000, None

    def report(self, association, about):
        told = Dataset()
        told.TransactionUID = about.TransactionUID
        told.ReferencedSOPSequence = about.ReferencedSOPSequence
        status, _ = association.send_n_event_report(told, 1, StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1")
        assert status.Status == 0x0000

    def tell(self, event):
        from pynetdicom import build_role

        if self.how == "here" or not self.reports:
            return
        ae = AE(ae_title="PACS")
        ae.add_requested_context(StorageCommitmentPushModel)
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        link = ae.associate("127.0.0.1", self.node_port(), ae_title="XRAY", ext_neg=[role])
        assert link.is_established
        while self.reports:
            self.report(link, self.reports.pop())
        link.release()


@pytest.mark.parametrize("how", ["here", "later"])
def test_an_archive_commits_on_the_same_association_or_on_its_own(how):
    node = None
    with Archive(how, lambda: node.port) as archive:
        node = DicomNode(found_in, Peer("PACS", "127.0.0.1", archive.port), 0, limits=QUICK, commits=True)
        with node:
            assert send(node, radiograph()) == 0x0000
            wait_for(lambda: node.counts.returned == 2)
            assert node.status()["answered"] == 1
            assert len(archive.kept) == 2
            asked = {item.ReferencedSOPInstanceUID for about in archive.asked for item in about.ReferencedSOPSequence}
            assert asked == {dataset.SOPInstanceUID for dataset in archive.kept}


def test_a_peer_is_asked_whether_it_is_there():
    with Archive("here") as archive:
        assert Sender(Peer("PACS", "127.0.0.1", archive.port), "XRAY", QUICK).echo() == Outcome(
            Verdict.TAKEN, "status 0000"
        )
        # A title that it does not have.
        archive.server.ae.require_called_aet = True
        outcome = Sender(Peer("OTHER", "127.0.0.1", archive.port), "XRAY", QUICK).echo()
        assert "--dicom-return" in outcome.why
    with Receiver() as receiver:
        outcome = Sender(Peer("PACS", "127.0.0.1", receiver.port), "XRAY", QUICK).echo()
        assert outcome == NO_ECHO
    assert Sender(Peer("PACS", "127.0.0.1", receiver.port), "XRAY", QUICK).echo().why.startswith("no connection")


def test_an_instance_that_is_sent_three_times_is_answered_once(tmp_path):
    with Receiver() as pacs:
        peer = Peer("PACS", "127.0.0.1", pacs.port)
        sent = radiograph()
        with DicomNode(found_in, peer, 0, limits=QUICK, folder=tmp_path / "queue") as node:
            assert send(node, sent) == send(node, sent) == 0x0000
            wait_for(lambda: node.status()["answered"] == 1)
            assert node.counts.repeated == 1
        with DicomNode(found_in, peer, 0, limits=QUICK, folder=tmp_path / "queue") as node:
            from pydicom.uid import ImplicitVRLittleEndian

            assert send(node, sent) == 0x0000
            assert send(node, sent, syntax=ImplicitVRLittleEndian) == 0x0000
            assert node.counts.repeated == 2
            # The patient's name was corrected: the answer shall have it, too.
            sent.PatientName = "Corrected^Name"
            assert send(node, sent) == 0x0000
            wait_for(lambda: node.status()["answered"] == 2)
        assert len({dataset.SOPInstanceUID for dataset in pacs.kept}) == len(pacs.kept) == 4
        assert [str(dataset.PatientName) for dataset in pacs.kept[::2]] == ["Planted^Name", "Corrected^Name"]


def test_what_waits_when_the_node_ends_is_answered_by_the_next(tmp_path):
    folder = tmp_path / "queue"
    with Receiver() as pacs:
        peer = Peer("PACS", "127.0.0.1", pacs.port)
        numbers = itertools.count()

        def answer_some(path):
            if next(numbers) > 1:
                wait_for(lambda: node._stopping.is_set())
                raise RuntimeError
            return found_in(path)

        with DicomNode(answer_some, Peer("PACS", "127.0.0.1", 9), 0, limits=QUICK, folder=folder) as node:
            sent = [radiograph() for _ in range(6)]
            assert [send(node, one) for one in sent] == [0x0000] * 6
            wait_for(lambda: node.status()["returning"] == 4)
        with DicomNode(found_in, peer, 0, limits=QUICK, folder=folder) as node:
            wait_for(lambda: node.counts.returned == 12)
            assert node.status()["answered"] == 6
            assert sorted(dataset.Modality for dataset in pacs.kept) == ["SEG"] * 6 + ["SR"] * 6
            assert {dataset.StudyInstanceUID for dataset in pacs.kept} == {one.StudyInstanceUID for one in sent}
            assert node.status()["oldest_seconds"] == 0
        assert not list(folder.glob("*/*"))


def test_a_class_that_the_other_node_does_not_take_keeps_nothing_else_back():
    def found_twice(path):
        report, segmentation = found_in(path)
        # The segmentation alone, so that nothing of what is offered is accepted.
        return [segmentation] if "alone" in names else [segmentation, report]

    names = []
    with Receiver() as pacs:
        pacs.server.contexts = [one for one in pacs.server.contexts if one.abstract_syntax != SegmentationStorage]
        with DicomNode(found_twice, Peer("PACS", "127.0.0.1", pacs.port), 0, limits=QUICK) as node:
            send(node, radiograph())
            wait_for(lambda: node.counts.failed == node.counts.returned == 1)
            names.append("alone")
            send(node, radiograph())
            wait_for(lambda: node.counts.failed == 2)
            names.clear()
            send(node, radiograph())
            wait_for(lambda: node.counts.returned == 2)
