"""Commands about stored runs that are refused, each with its whole message."""

SENTENCES = {
    # name -> the command, and its whole message
    "a text for codes": (
        ["evaluate", "--run={runs}/prior", "--dataset=poems.txt"],
        "--dataset=poems.txt is a text file; {runs}/prior was trained on kind token, shape (2, 2) "
        "and 4 levels.",
    ),
    "classes of no model": (
        ["evaluate", "--run={runs}/conv", "--measures=classification"],
        "--run={runs}/conv, a run of --model=conv: --measures=classification needs p(x|y): a model "
        "that was trained with --condition=label.",
    ),
    "information of a density": (
        ["evaluate", "--run={runs}/prior", "--measures=information"],
        "--run={runs}/prior, a run of --model=pixelcnn: --measures=information needs q(z|x) and "
        "p(z): a run of a latent-variable model.",
    ),
    "pairs without the measure": (
        ["evaluate", "--run={runs}/conv", "--information_examples=5"],
        "--information_examples=5 goes with --measures=information; got --measures=quantities.",
    ),
    "too many pairs": (
        ["evaluate", "--run={runs}/conv", "--measures=information", "--information_examples=9999"],
        "--information_examples must lie in 2..23, the test examples; got 9999.",
    ),
    "more than all examples": (
        ["evaluate", "--run={runs}/conv", "--test_examples=24"],
        "--test_examples must lie in 1..23, the test examples of blobs; got 24.",
    ),
    "no examples": (
        ["evaluate", "--run={runs}/conv", "--test_examples=0"],
        "--test_examples must be a positive integer; got '0'.",
    ),
    "a label for nothing": (
        ["sample", "--run={runs}/conv", "--label=1", "--out={runs}/x.png"],
        "--label=1 needs a run with --condition=label; {runs}/conv is conditioned on nothing.",
    ),
    "no run": (["evaluate"], "--run must name a run's directory."),
    "no such run": (
        ["evaluate", "--run={runs}/gone"],
        "--run={runs}/gone is not a run's directory (cannot read {runs}/gone/config.json: No such "
        "file or directory).",
    ),
    "no checkpoint": (
        ["sample", "--run={empty}", "--out={runs}/x.png"],
        "--run={empty} has no checkpoint yet, or none that is whole.",
    ),
    "no such measure": (
        ["evaluate", "--run={runs}/conv", "--measures=elbow"],
        "--measures must be among quantities, squared_error, classification, information, text, "
        "disentanglement; got 'elbow'.",
    ),
    "no measure": (
        ["evaluate", "--run={runs}/conv", "--measures="],
        "--measures must be among quantities, squared_error, classification, information, text, "
        "disentanglement; got ''.",
    ),
    "nothing to decode": (
        ["evaluate", "--run={runs}/prior", "--measures=squared_error"],
        "--run={runs}/prior, a run of --model=pixelcnn: --measures=squared_error needs a method "
        "that encodes and decodes.",
    ),
    "k above eval_k": (
        ["evaluate", "--run={runs}/conv", "--k=30"],
        "--eval_k must be at least --k, 30, so that the IWAE-k bound can be evaluated; got 20 "
        "(a flag that is not given has the run's value).",
    ),
    "eval_k below k": (
        ["evaluate", "--run={runs}/conv", "--eval_k=1"],
        "--eval_k must be at least --k, 2, so that the IWAE-k bound can be evaluated; got 1 "
        "(a flag that is not given has the run's value).",
    ),
    "draws for ever": (
        ["evaluate", "--run={runs}/conv", "--eval_k=99999999999"],
        "--eval_k must be at most 10,000,000; got 99,999,999,999.",
    ),
    "no such seed": (
        ["evaluate", "--run={runs}/conv", "--seed=99999999999"],
        "--seed must lie in 0..2147483647; got 99999999999.",
    ),
    "no draws": (
        ["evaluate", "--run={runs}/vqvae", "--k=3"],
        "--k=3 does not go with {runs}/vqvae, a run of vqvae, which is measured without draws.",
    ),
    "other shape": (
        ["evaluate", "--run={runs}/conv", "--dataset=mnist_small"],
        "--dataset=mnist_small has test examples of kind image, shape (28, 28) and 2 levels; "
        "{runs}/conv was trained on kind image, shape (8, 8) and 2 levels.",
    ),
    "other kind": (
        ["evaluate", "--run={runs}/prior", "--dataset={floats}"],
        "--dataset={floats} has test examples of kind image, shape (8, 8) and 2 levels; "
        "{runs}/prior was trained on kind token, shape (2, 2) and 4 levels.",
    ),
    "no such replicate": (
        ["evaluate", "--run={runs}/conv", "--replicate=1"],
        "--run={runs}/conv has 1 replicates, counted from 0; got 1.",
    ),
    "other ending": (
        ["sample", "--run={runs}/conv", "--out=x.jpg"],
        "--out must be a path ending in .png, .svg or .npz, or .txt for texts; got 'x.jpg'.",
    ),
    "no prior": (
        ["sample", "--run={runs}/vqvae", "--out={runs}/x.png"],
        "--run={runs}/vqvae: vqvae gives no samples without a prior of its codes.",
    ),
    "unknown show": (
        ["sample", "--run={runs}/conv", "--show=maps"],
        "--show must be one of samples, interpolation, traversal, plane, map, shared_z; got "
        "'maps'.",
    ),
    "number of a map": (
        ["sample", "--run={runs}/conv", "--show=map", "--num=5"],
        "--num has no meaning with --show=map; leave it out.",
    ),
    "examples of samples": (
        ["sample", "--run={runs}/conv", "--examples=5"],
        "--examples has no meaning with --show=samples; leave it out.",
    ),
    "examples of a map": (
        ["sample", "--run={runs}/conv", "--show=map", "--examples=5"],
        "--examples belongs to --show=interpolation, --show=traversal, --show=shared_z; got "
        "--show=map.",
    ),
    "examples that are no numbers": (
        ["sample", "--run={runs}/conv", "--show=traversal", "--examples=first"],
        "--examples must be whole numbers of at least 0, separated by commas; got 'first'.",
    ),
    "no such example": (
        ["sample", "--run={runs}/conv", "--show=traversal", "--examples=23"],
        "--examples must be indices of test examples, in 0..22; got 23.",
    ),
    "two examples of a traversal": (
        ["sample", "--run={runs}/conv", "--show=traversal", "--examples=1,2"],
        "--examples must be one test example for --show=traversal; got '1,2'.",
    ),
    "half a pair": (
        ["sample", "--run={runs}/conv", "--show=interpolation", "--examples=1,2,3"],
        "--examples must be pairs of test examples; got '1,2,3', an odd number.",
    ),
    "no latents": (
        ["sample", "--run={runs}/prior", "--show=map"],
        "--show=map needs continuous latents, as mlp and conv have; {runs}/prior is a run of "
        "pixelcnn, and pixelcnn has none.",
    ),
    "latents of codes": (
        ["sample", "--run={runs}/vqvae", "--show=traversal"],
        "--show=traversal needs continuous latents, as mlp and conv have; {runs}/vqvae is a run of "
        "vqvae, and vqvae has none.",
    ),
    "plane of three": (
        ["sample", "--run={runs}/upper", "--show=plane"],
        "--show=plane needs --latent_dims=2; {runs}/upper has latent_dims=3.",
    ),
    "no bound": (
        ["gradients", "--run={runs}/vqvae"],
        "--run={runs}/vqvae is a run of vqvae, which has no bound to differentiate; give one of a "
        "model with an objective.",
    ),
}
