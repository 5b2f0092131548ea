"""Classifiers of pixels with which a conditional model is compared, by scikit-learn.

naive Bayes          p(y) prod_d p(x_d|y), Bernoulli pixels with Laplace's correction: the simplest
                     generative classifier
logistic regression  p(y|x) by a linear layer, with an L2 penalty: a discriminative one

scikit-learn belongs to the extra `classification`.
"""

import warnings

import numpy as np

NAIVE_BAYES, LOGISTIC = NAMES = ("naive Bayes", "logistic")
# Iterations of L-BFGS.
_ITERATIONS = 500


def log_posteriors(
    x_train: np.ndarray, label: np.ndarray, x_test: np.ndarray, classes: int
) -> dict[str, np.ndarray]:
    """log p(y|x) of the test images by each classifier, [N', C].

    Args:
      x_train: images in [0, 1], [N, D]; naive Bayes takes a pixel above one half as white.
      label: of the training images, [N]; every class of 0..C-1 occurs.
      x_test: [N', D].
      classes: C.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import BernoulliNB

    if classes < 2:
        return {}  # There is nothing to decide.
    fits = {
        NAIVE_BAYES: BernoulliNB(binarize=0.5),
        LOGISTIC: LogisticRegression(max_iter=_ITERATIONS),
    }
    posteriors = {}
    for name, classifier in fits.items():
        with warnings.catch_warnings():
            # The penalized optimum is unique, and close after so many iterations.
            warnings.simplefilter("ignore", ConvergenceWarning)
            classifier.fit(x_train, label)
        posteriors[name] = classifier.predict_log_proba(x_test)
    return posteriors
