"""Commands of experiments.run that are refused, each with its whole message."""

GAUSSIAN = ("--binarization=none", "--likelihood=gaussian")
SENTENCES = {
    # name -> the command, and its whole message
    "no codes": (
        ["run", "--dataset=codes:{runs}/conv", "--model=pixelcnn"],
        "--dataset=codes:{runs}/conv: {runs}/conv is a run of conv, without codes; it has "
        "features: features:{runs}/conv.",
    ),
    "no features": (
        ["run", "--dataset=features:{runs}/prior", *GAUSSIAN],
        "--dataset=features:{runs}/prior: {runs}/prior is a run of pixelcnn, without features; it "
        "encodes nothing.",
    ),
    "unfinished": (
        ["run", "--dataset=codes:{unfinished}", "--model=pixelcnn"],
        "--dataset=codes:{unfinished}: {unfinished} is at step 6 of 12; train it to its end first, "
        "by the command that began it.",
    ),
    "codes for mlp": (
        ["run", "--dataset=codes:{runs}/vqvae"],
        "--model=mlp with --dataset=codes:{runs}/vqvae: The model mlp takes images or real "
        "numbers, not tokens.",
    ),
    "binary colours": (
        ["run", "--dataset={colours}", "--model=mixture"],
        "--binarization=dynamic is for images of one channel, and those of colours have 3, in grey "
        "levels; use --binarization=none with --likelihood=gaussian.",
    ),
    "binary colours of pixelcnn": (
        ["run", "--dataset={colours}", "--model=pixelcnn", "--binarization=threshold"],
        "--binarization=threshold is for images of one channel, and those of colours have 3, in "
        "grey levels; use --binarization=none.",
    ),
    "codes for conv": (
        ["run", "--dataset=codes:{runs}/vqvae", "--model=conv"],
        "--model=conv with --dataset=codes:{runs}/vqvae: The model conv takes images, not tokens.",
    ),
    "codes for vqvae": (
        ["run", "--dataset=codes:{runs}/vqvae", "--model=vqvae"],
        "--model=vqvae with --dataset=codes:{runs}/vqvae: The model vqvae takes images, not "
        "tokens.",
    ),
    "gaussian of codes": (
        ["run", "--dataset=codes:{runs}/vqvae", *GAUSSIAN],
        "--model=mlp with --dataset=codes:{runs}/vqvae: The model mlp takes images or real "
        "numbers, not tokens.",
    ),
    "features for conv": (
        ["run", "--dataset=features:{runs}/conv", "--model=conv", *GAUSSIAN],
        "--model=conv with --dataset=features:{runs}/conv: Convolutions take images (H, W) or "
        "(H, W, C), not the shape (2,).",
    ),
    "features for pixelcnn": (
        ["run", "--dataset=features:{runs}/conv", "--model=pixelcnn"],
        "--model=pixelcnn with --dataset=features:{runs}/conv: --model=pixelcnn needs data of "
        "levels (binary images, 256 grey levels, tokens); got real numbers.",
    ),
    "kernels of a diagonal": (
        ["run", "--model=pixelrnn", "--rnn=diagonal", "--kernel_size=5"],
        "--kernel_size=5 needs --rnn=row; got diagonal.",
    ),
    "activation of gates": (
        ["run", "--model=text", "--text_decoder=autoregressive", "--activation=relu"],
        "--activation=relu needs --text_decoder=positionwise; got autoregressive.",
    ),
    "an even window": (
        ["run", "--model=pixelvae", "--receptive_field=6"],
        "--receptive_field must be an odd number in 3..199; got 6.",
    ),
    "no window": (
        ["run", "--model=pixelvae", "--receptive_field=0"],
        "--receptive_field must be an odd number in 3..199; got 0.",
    ),
    "an even kernel": (
        ["run", "--model=pixelcnn", "--kernel_size=2"],
        "--kernel_size must be an odd number in 3..99; got 2.",
    ),
    "characters of no decoder": (
        ["run", "--model=text", "--decoder_dropout=0.5"],
        "--decoder_dropout=0.5 needs --text_decoder=autoregressive; got positionwise.",
    ),
    "nothing seen": (
        ["run", "--model=pixelvae", "--decoder_dropout=1"],
        "--decoder_dropout must be a number of at least 0 and below 1; got 1.0.",
    ),
    "codes for pixelvae": (
        ["run", "--dataset=codes:{runs}/vqvae", "--model=pixelvae"],
        "--model=pixelvae with --dataset=codes:{runs}/vqvae: The model pixelvae takes images, not "
        "tokens.",
    ),
    "floats for pixelvae": (
        ["run", "--dataset={floats}", "--binarization=none", "--model=pixelvae"],
        "--model=pixelvae with --dataset={floats}: --model=pixelvae needs images of levels (binary "
        "images or 256 grey levels); got images of real numbers, which --binarization=dynamic, "
        "fixed or threshold makes binary.",
    ),
    "the mean of pixelvae": (
        ["run", "--model=pixelvae", "--objective=lambda_vae"],
        "--objective=lambda_vae needs the mean of p(x|z), which --model=pixelvae does not have in "
        "closed form.",
    ),
    "free bits of noise": (
        ["run", "--model=flow", "--objective=free_bits"],
        "--objective=free_bits does not go with --model=flow, whose bounds are functions of the "
        "log-weights of noise; valid: elbo, beta_vae, iwae, miwae, ciwae, renyi, jackknife, tvo, "
        "sumo.",
    ),
    "remedies of another decoder": (
        ["study", "collapse", "--model=mlp"],
        "--model must be pixelvae in the study collapse, whose remedies are settings of its "
        "decoder; got 'mlp'.",
    ),
    "steps of no encoder": (
        ["run", "--model=pixelcnn", "--encoder_steps=2"],
        "--encoder_steps=2 does not go with --model=pixelcnn, which is trained by a loss of its "
        "own.",
    ),
    "steps of an average": (
        ["run", "--optimizer=schedule_free", "--encoder_steps=2"],
        "--encoder_steps=2 does not go with --optimizer=schedule_free, whose average moves the "
        "weights at every step; valid: 1.",
    ),
    "features as bernoulli": (
        ["run", "--dataset=features:{runs}/conv"],
        "--likelihood must be gaussian, gaussian_fixed or gaussian_predicted (with "
        "--binarization=none) for features:{runs}/conv, which has real numbers; got bernoulli.",
    ),
    "floats for pixelcnn": (
        ["run", "--dataset={floats}", "--binarization=none", "--model=pixelcnn"],
        "--model=pixelcnn with --dataset={floats}: --model=pixelcnn needs data of levels (binary "
        "images, 256 grey levels, tokens); got images of real numbers, which "
        "--binarization=dynamic, fixed or threshold makes binary.",
    ),
    "too many layers": (
        ["run", "--model=conv", "--residual_blocks=100000000"],
        "--residual_blocks must be at most 100; got 100000000.",
    ),
    "one code": (
        ["run", "--model=vqvae", "--num_codes=1"],
        "--num_codes must be at least 2; got 1.",
    ),
    "too wide": (
        ["run", "--model=vqvae", "--code_dim=1000000000"],
        "--code_dim=1000000000 is too large: the parameters of a model, ",
    ),
    "draws of an autoencoder": (
        ["run", "--model=conv", "--objective=autoencoder", "--k=2"],
        "--k=2 does not go with --objective=autoencoder, which takes no draws.",
    ),
    "estimator of pixelcnn": (
        ["run", "--model=pixelcnn", "--estimator=dreg"],
        "--estimator=dreg does not go with --model=pixelcnn, which is trained by a loss of its "
        "own.",
    ),
    "estimator of sbn": (
        ["run", "--model=sbn", "--estimator=dreg"],
        "--estimator=dreg differentiates through draws of z, which are discrete in --model=sbn; "
        "valid estimators with --objective=iwae: vimco, score_loo, score, disarm, arm, rebar, "
        "ovis, wake, gumbel_softmax, straight_through.",
    ),
    "objective of vqvae": (
        ["run", "--model=vqvae", "--objective=elbo"],
        "--objective=elbo does not go with --model=vqvae, which is trained by a loss of its own.",
    ),
    "a whole batch of one": (
        ["run", "--model=conv", "--objective=free_bits_batch", "--batch_size=1"],
        "--objective=free_bits_batch compares the images of a batch, and needs --batch_size of at "
        "least 2; got 1.",
    ),
    "another family's setting": (
        ["run", "--model=conv", "--hidden_dims=8"],
        "--hidden_dims is a setting of --model=mlp, sbn; got --model=conv.",
    ),
    "another optimizer's setting": (
        ["run", "--soap_decay=0.9"],
        "--soap_decay is a setting of --optimizer=soap; got --optimizer=adam.",
    ),
    "two averages": (
        ["run", "--optimizer=schedule_free", "--ema=0.99"],
        "--ema=0.99 does not go with --optimizer=schedule_free, which averages the weights by "
        "itself.",
    ),
    "no decay": (
        ["run", "--optimizer=muon", "--muon_beta=1"],
        "--muon_beta must be a number of at least 0 and below 1; got 1.0.",
    ),
    "the rate of em": (
        ["run", "--model=mixture", "--learning_rate=0.01"],
        "--learning_rate=0.01 has no effect with --fit=em, which takes no gradient; leave it out, "
        "or give --fit=gradient.",
    ),
    "the decay of gradients": (
        ["run", "--model=mixture", "--fit=gradient", "--em_decay=0.5"],
        "--em_decay=0.5 has no effect with --fit=gradient; leave it out, or give --fit=em.",
    ),
    "covariances of pixels": (
        ["run", "--model=mixture", "--covariance=tied"],
        "--covariance=tied has no effect with --likelihood=bernoulli, whose components have no "
        "covariance; leave it out, or give --likelihood=gaussian.",
    ),
    "too many components": (
        ["run", "--model=mixture", "--components=101"],
        "--components must be at most 100 with --start=kmeans++, which draws the means from the "
        "first 100 training examples; got 101. --start=random takes any number.",
    ),
    "a pixel without variance": (
        ["run", "--model=mixture", "--variance_floor=0"],
        "--model=mixture with --dataset=mnist_small: --variance_floor must be above 0 and "
        "below 0.25, the largest variance of a pixel, with --likelihood=bernoulli: a pixel that no "
        "image of a component lights would have the probability 0; got 0.",
    ),
    "codes for mixture": (
        ["run", "--dataset=codes:{runs}/vqvae", "--model=mixture"],
        "--model=mixture with --dataset=codes:{runs}/vqvae: The model mixture takes images or real "
        "numbers, not tokens.",
    ),
    "draws of a gan": (
        ["run", "--objective=gan", "--k=2"],
        "--k=2 does not go with --objective=gan, which takes no draws.",
    ),
    "gan of discrete latents": (
        ["run", "--model=sbn", "--objective=gan"],
        "--objective=gan needs --model=mlp or conv; got sbn, whose latents are discrete.",
    ),
    "gan of pixels": (
        ["run", "--model=pixelvae", "--objective=gan"],
        "--objective=gan needs --model=mlp or conv; got pixelvae, whose p(x|z) has no mean in "
        "closed form, which a generator gives.",
    ),
    "penalty without its loss": (
        ["run", "--objective=gan", "--gradient_penalty=1"],
        "--gradient_penalty=1.0 needs --gan_loss=wasserstein; got nonsaturating.",
    ),
    "gan with labels": (
        ["run", "--objective=gan", "--condition=label"],
        "--condition=label does not go with --objective=gan, whose networks see no label; use "
        "--condition=none.",
    ),
    "centred images of a gan": (
        ["run", "--objective=gan", "--center_inputs"],
        "--center_inputs=true does not go with --objective=gan, whose discriminator sees images as "
        "they are; use --center_inputs=false.",
    ),
    "prior of a gan": (
        ["run", "--objective=gan", "--prior=mixture"],
        "--prior=mixture does not go with --objective=gan, which has no q(z|x) and fits no prior; "
        "valid: standard.",
    ),
    "labels of sbn": (
        ["run", "--model=sbn", "--condition=label"],
        "--condition is a setting of --model=mlp, conv, pixelcnn, pixelrnn, pixelvae; got "
        "--model=sbn.",
    ),
    "no such condition": (
        ["run", "--condition=class"],
        "--condition must be one of none, label; got 'class'.",
    ),
    "no labels": (
        ["run", "--dataset={floats}", "--condition=label"],
        "--condition=label needs labels, and the training examples of floats have none; use "
        "--condition=none.",
    ),
    "a prior with labels": (
        ["run", "--prior=vamp", "--condition=label"],
        "--prior=vamp does not go with --condition=label: it mixes q(z|u), but the inference "
        "network is q(z|u, y), and p(z) has no label; use standard, mixture or flow.",
    ),
}
