"""pythae: its IWAE (its VAE's own log-likelihood estimate), trained by its trainer's loop, with a
data loader that fetches a batch at once.
"""

import logging
import tempfile

import torch
from pythae.data.datasets import BaseDataset, DatasetOutput
from pythae.models import IWAE, IWAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from benchmarks.peers import pytorch
from benchmarks.peers.common import DATA_DIM, DRAWS, LATENT, Peer, Task


class Encoder(BaseEncoder):
    """Our layers, in pythae's terms."""

    def __init__(self, task: Task):
        super().__init__()
        self.network = pytorch.Encoder(task)

    def forward(self, x: Tensor) -> ModelOutput:
        mean, log_std = self.network(x)
        return ModelOutput(embedding=mean, log_covariance=2 * log_std)


class Decoder(BaseDecoder):
    """The mean image, which is what pythae's losses take."""

    def __init__(self, task: Task):
        super().__init__()
        self.network = pytorch.decoder(task)

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=torch.sigmoid(self.network(z)))


class Binarized(BaseDataset):
    """Binarized anew at each visit; an index may be a list of them."""

    def __getitem__(self, index) -> DatasetOutput:
        return DatasetOutput(data=torch.bernoulli(self.data[index]), labels=self.labels[index])


class Trainer(BaseTrainer):
    """The loop of an epoch, over as many batches as a call has."""

    steps: int

    def get_train_dataloader(self, train_dataset: BaseDataset) -> DataLoader:
        size = self.training_config.per_device_train_batch_size
        order = RandomSampler(train_dataset, num_samples=self.steps * size)
        return DataLoader(train_dataset, batch_size=None, sampler=BatchSampler(order, size, True))


def make(task: Task) -> Peer:
    """One epoch of the trainer is one call."""
    pytorch.set_up(task)
    logging.getLogger("pythae").setLevel(logging.ERROR)
    config = IWAEConfig(
        input_dim=(DATA_DIM,),
        latent_dim=LATENT,
        reconstruction_loss="bce",
        number_samples=task.k,
    )
    model = IWAE(config, Encoder(task), Decoder(task))
    b1, b2, epsilon = task.adam
    settings = BaseTrainerConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=task.batch,
        learning_rate=task.learning_rate,
        optimizer_params={"betas": (b1, b2), "eps": epsilon, "fused": True},
    )
    images = torch.from_numpy(task.images) / 255
    Trainer.steps = task.steps
    trainer = Trainer(model, Binarized(images, torch.zeros(len(images))), None, settings)
    trainer.prepare_training()
    trainer.callback_handler.callbacks = []  # Its progress bars.
    x = torch.from_numpy(task.x)
    epochs = iter(range(10**9))

    def nll(x: Tensor, draws: int) -> float:
        model.eval()
        with torch.inference_mode():
            return float(model.get_nll(x, n_samples=draws, batch_size=min(draws, pytorch.ROWS)))

    return Peer(
        lambda: trainer.train_step(next(epochs)),
        lambda: nll(x, task.k),
        lambda images: nll(torch.from_numpy(images), DRAWS),
    )
