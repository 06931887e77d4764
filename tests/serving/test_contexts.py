"""What is negotiated: of each presentation context the first syntax of the sender's list that the node reads."""

import pytest

pytest.importorskip("pynetdicom")
pytest.importorskip("highdicom")

from pydicom.uid import (
    MPEG2MPML,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from pynetdicom import AE, evt
from pynetdicom.sop_class import ComprehensiveSRStorage, StorageCommitmentPushModel, Verification

from xray.radiographs.codestream import COMPRESSED
from xray.radiographs.dicom import NATIVE
from xray.serving.dicom_node import DicomNode
from xray.serving.dicom_peers import ACCEPTED, Peer, let_sender_choose, offer, support


@pytest.fixture(scope="module")
def node():
    """A node that only negotiates here."""
    with DicomNode(lambda path: [], Peer("PACS", "127.0.0.1", 9), 0) as running:
        yield running


def negotiated(node, *contexts):
    """(storage, syntaxes) of each context → the syntax that was taken for it, None where it was refused."""
    ae = AE(ae_title="ME")
    for storage, syntaxes in contexts:
        ae.add_requested_context(storage, list(syntaxes))
    association = ae.associate("127.0.0.1", node.port, ae_title="XRAY")
    assert association.is_established or association.is_aborted
    taken = {context.context_id: context.transfer_syntax[0] for context in association.accepted_contexts}
    if association.is_established:
        association.release()
    return [taken.get(2 * number + 1) for number in range(len(contexts))]


CR = ComputedRadiographyImageStorage


@pytest.mark.parametrize(
    ("offered", "taken"),
    [
        ((JPEG2000Lossless, ExplicitVRLittleEndian, ImplicitVRLittleEndian), JPEG2000Lossless),
        ((JPEGLSLossless, ImplicitVRLittleEndian), JPEGLSLossless),
        ((RLELossless, JPEG2000Lossless), RLELossless),
        ((ExplicitVRLittleEndian, ImplicitVRLittleEndian), ExplicitVRLittleEndian),
        ((ImplicitVRLittleEndian, ExplicitVRLittleEndian), ImplicitVRLittleEndian),
        ((ExplicitVRBigEndian, ExplicitVRLittleEndian), ExplicitVRBigEndian),
        ((DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian), DeflatedExplicitVRLittleEndian),
        # What the reader does not decode is passed over, wherever it stands.
        ((MPEG2MPML, JPEGLSLossless, ImplicitVRLittleEndian), JPEGLSLossless),
        ((MPEG2MPML,), None),
    ],
)
def test_the_first_that_is_read_of_the_senders_list_is_taken(node, offered, taken):
    assert negotiated(node, (CR, offered), (Verification, (ImplicitVRLittleEndian,)))[0] == taken


def test_contexts_of_one_class_are_decided_each_by_itself(node):
    syntaxes = (JPEG2000Lossless, ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    turned = [(CR, syntaxes), (CR, syntaxes[::-1]), (CR, syntaxes[1:]), (ACCEPTED[1], syntaxes)]
    assert negotiated(node, *turned) == [syntaxes[0], syntaxes[2], syntaxes[1], syntaxes[0]]
    # Nothing of one association is left for the next.
    assert negotiated(node, (CR, syntaxes[::-1])) == [syntaxes[2]]


def test_all_that_the_reader_decodes_is_taken_and_nothing_else(node):
    for syntax in (*NATIVE, *COMPRESSED):
        assert negotiated(node, (CR, (syntax,))) == [syntax]
    ae = AE()
    support(ae)
    supported = {context.abstract_syntax: context.transfer_syntax for context in ae.supported_contexts}
    assert set(supported) == {*ACCEPTED, Verification, StorageCommitmentPushModel}
    assert set(supported[CR]) == {*NATIVE, *COMPRESSED}


def test_a_request_without_contexts_changes_nothing():
    class Association:
        class acceptor:
            supported_contexts = ()

        class requestor:
            class primitive:
                presentation_context_definition_list = ()

    let_sender_choose(Association)


@pytest.mark.parametrize("own", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize(
    "receivers",
    [
        (ImplicitVRLittleEndian, ExplicitVRLittleEndian),
        (ExplicitVRLittleEndian, ImplicitVRLittleEndian),
        (ImplicitVRLittleEndian,),
        (ExplicitVRLittleEndian,),
    ],
)
def test_what_goes_out_goes_as_it_lies_where_the_receiver_takes_that(own, receivers):
    from pydicom.dataset import Dataset, FileMetaDataset

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = own
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = ComprehensiveSRStorage
    dataset.SOPInstanceUID = "2.25.1"
    came = []

    def keep(event):
        came.append(event.context.transfer_syntax)
        return 0x0000

    scp = AE(ae_title="PACS")
    scp.add_supported_context(ComprehensiveSRStorage, list(receivers))
    server = scp.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
    try:
        ae = AE(ae_title="XRAY")
        offer(ae, dataset.SOPClassUID, str(dataset.file_meta.TransferSyntaxUID))
        link = ae.associate("127.0.0.1", server.server_address[1], ae_title="PACS")
        assert link.send_c_store(dataset).Status == 0x0000
        link.release()
    finally:
        server.shutdown()
    assert came == [own if own in receivers else receivers[0]]
