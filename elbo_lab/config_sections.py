"""Descriptions of the fields that every configuration has, in the sections of `--help`."""

# Section -> field of `configs.Config` -> description.
SECTIONS: dict[str, dict[str, str]] = {
    "What is maximized": {
        "objective": "the objective (if not given, the model family's own)",
        "k": "K, importance draws inside the bound (elbo and beta_vae: draws that are averaged; if "
        "not given, the model family's own)",
        "m": "M, independent repeats of the bound that are averaged (miwae, piwae)",
        "estimator": "the gradient estimator (if not given and the objective takes one: reparam, "
        "or for discrete z vimco or score); docs/bounds.md lists the valid ones of each objective",
        "score_baseline": "the learned baseline of --estimator=score: none, a running mean of the "
        "bound's values, or the mean and a network of x (NVIL)",
    },
    "The model": {
        "model": "the model family",
    },
    "The data": {
        "dataset": "{datasets}, another image set of tensorflow-datasets by its name there, or a "
        "path ending in .npz with arrays x_train and x_test (and, if there are labels, y_train and "
        "y_test), or by the names of MedMNIST or dSprites, or a path ending in .txt with a text on "
        "each line, all of the same length; or codes:RUN or features:RUN, the codes or the means "
        "of q(z|x) that a trained run gives its data (features:RUN:sample: draws from q(z|x)); "
        "training:NAME is the training split alone",
        "held_out": "number of training examples, the last ones, that are not trained on; for a "
        "set with one split, the number of examples drawn once as test examples",
        "binarization": "Bernoulli draws at every visit (dynamic), one such draw (fixed), white "
        "from one half on (threshold), or unchanged images (none, for binary images, or with a "
        "likelihood of grey levels)",
        "test_draw": "dynamic binarization of the test images: one draw for all runs, which can "
        "then be compared image by image (common), or a draw by each run's seed (by_seed)",
    },
    "Optimization": {
        "batch_size": "B, examples per step",
        "epochs": "passes over the training examples",
        "optimizer": "the optimizer",
        "learning_rate": "the optimizer's learning rate",
        "lr_schedule": "the learning rate's course: constant, by a cosine to zero, or the eight "
        "stages of the IWAE paper scaled to this run's length (burda_rounded: with two digits of "
        "each rate, as its code)",
        "warmup_steps": "steps over which the learning rate rises from 0, by a factor beside its "
        "course",
        "shuffle": "a new order of the examples in every pass, instead of their order in the file",
        "batch_gradient": "gradient of the loss's mean or of its sum over the batch; with Adam "
        "the two differ only in the effect of epsilon and of --clip_norm",
        "clip_norm": "clip the gradient to this global norm (never if not given)",
        "ema": "decay of an average of the parameters over the steps, which is evaluated in their "
        "place (0: none)",
        "encoder_steps": "updates of the encoder, or of a GAN's discriminator, for each update of "
        "decoder and prior, which move at every so many steps alone (1: all move at every step); "
        "for models with latents",
        "init_from": "directory of a run of the same networks at whose parameters this one starts "
        "(random ones if not given)",
        "seed": "seed of initialization, batches and draws; the test images' common binarization "
        "and --binarization=fixed do not depend on it",
        "replicates": "R, runs of the seeds seed .. seed + R - 1 trained in one compiled program",
    },
    "Evaluation, logging and checkpoints": {
        "eval_k": "draws per test example of the log-likelihood estimate (if not given, the model "
        "family's own)",
        "au_images": "training examples, the first ones, over which active units are counted (all "
        "test examples if not given)",
        "log_every": "steps per compiled call and line of metrics, at most a pass over the data "
        "(if not given, as many as take about 50,000 draws)",
        "probe_every": "steps between measurements of the first test batch during training, at the "
        "end of a compiled call, as curves (never if not given)",
        "checkpoint_every": "steps between checkpoints, which are saved at the end of a compiled "
        "call (if not given, every 20 calls)",
    },
}
