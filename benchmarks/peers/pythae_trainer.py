"""pythae: its IWAE, trained by its trainer's loop, with a data loader that fetches whole batches.

L_5000 is its models' own log-likelihood estimate.
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
    """The common layers, with the outputs that pythae expects."""

    def __init__(self, task: Task):
        super().__init__()
        self.network = pytorch.Encoder(task)

    def forward(self, x: Tensor) -> ModelOutput:
        mean, log_std = self.network(x)
        return ModelOutput(embedding=mean, log_covariance=2 * log_std)


class Decoder(BaseDecoder):
    """z -> the mean image, which pythae's losses expect."""

    def __init__(self, task: Task):
        super().__init__()
        self.network = pytorch.decoder(task)

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=torch.sigmoid(self.network(z)))


class Binarized(BaseDataset):
    """Images that are binarized at each access; an index may be a list of indices."""

    def __getitem__(self, index) -> DatasetOutput:
        return DatasetOutput(data=torch.bernoulli(self.data[index]), labels=self.labels[index])


class Trainer(BaseTrainer):
    """A trainer whose epoch has `steps` batches."""

    steps: int

    def get_train_dataloader(self, train_dataset: BaseDataset) -> DataLoader:
        size = self.training_config.per_device_train_batch_size
        order = RandomSampler(train_dataset, num_samples=self.steps * size)
        return DataLoader(train_dataset, batch_size=None, sampler=BatchSampler(order, size, True))


def make(task: Task) -> Peer:
    """A peer whose call of `train` is one epoch of the trainer."""
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
    trainer.callback_handler.callbacks = []  # removes its progress bars
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
