"""Detectors of plain torch as sources and victims of transfer."""
import pytest
import torch

pytest.importorskip('mmdet', reason='plain modules stand beside models of the libraries', exc_type=ImportError)

from PIL import Image  # noqa: E402

from sparse_dense_attacks import InputError, SparsePGD, ThreatModel, Vanish  # noqa: E402
from sparse_dense_attacks.engine.plain import PlainMember, bare, victim_of, weights_digest  # noqa: E402
from sparse_dense_attacks.engine.transfer import PlainViewer  # noqa: E402
from sparse_dense_attacks.evaluation.transfer import change  # noqa: E402
from sparse_dense_attacks.victims import TorchDetector  # noqa: E402
from tests.helpers import pictures  # noqa: E402
from tests.victims.test_torch_detector import Spots, decode, detector  # noqa: E402


@pytest.fixture
def photo(tmp_path):
    """An image in which RGB and BGR differ."""
    pixels = (pictures(1, 3, 60, 80, seed=3)[0] * 255).round().byte()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / 'clean.png')
    return tmp_path / 'clean.png', pixels


def test_a_detector_of_torchvision_is_attacked_and_looks(photo):
    path, pixels = photo
    model = detector('retinanet')
    victim = victim_of(model, str(path), torch.device('cpu'))
    assert isinstance(victim, TorchDetector) and victim.reference == 'prediction'
    member = PlainMember.of('retinanet', victim, SparsePGD(k=0.3, steps=3), Vanish(), ThreatModel(), {str(path): 'photo'})
    with victim.session():
        batch, task = member.open([str(path)])
        result, pictures_found = member.judged(batch, task, member.attacker.run(task.objective))
    assert task.objective.eligible.all() and result.parts.item() > 0
    Image.fromarray(pictures_found[0].flip(0).permute(1, 2, 0).numpy()).save(path.with_name('attacked.png'))
    viewer = PlainViewer(model)
    before, = viewer.look('photo', [path])
    after, same = viewer.look('photo', [path.with_name('attacked.png'), path])
    with torch.no_grad():
        expected, = model([pixels / 255])
    assert before.answer.boxes.tolist() == expected['boxes'].tolist()
    assert change(before.answer, same.answer) == 0 < change(before.answer, after.answer)


def test_a_detector_with_a_decoder_looks_and_one_without_is_refused(photo):
    path, _ = photo
    given = TorchDetector(Spots(), decode)
    said, = PlainViewer(given).look('photo', [path])
    assert len(said.answer.scores) == 30 * 40
    assert weights_digest(bare(given)) == weights_digest(Spots())
    assert victim_of(given, str(path), torch.device('cpu')).reference == 'prediction'

    class Unknown(torch.nn.Module):
        def forward(self, x):
            return [dict(boxes=x.new_zeros(0, 4))]

    with pytest.raises(InputError, match='boxes are not known: name a function that returns TorchDetector'):
        PlainViewer(Unknown()).look('photo', [path])
    with pytest.raises(InputError, match='decode is needed'):
        victim_of(Unknown(), str(path), torch.device('cpu'))
