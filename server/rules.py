"""What the provider accepts, from what it was told of the scenario."""

from fedenc.scenario import ProviderView
from fedenc.scenario.sections import PLAIN
from fedenc.shard import TRAIN, UNPROTECTED, Rules


def rules(view: ProviderView, purpose: str) -> Rules:
    """Rules for shards of one purpose: ``train`` or an inference condition."""
    own, plain = (view.cipher, view.cipher_params), UNPROTECTED
    if purpose == TRAIN:
        return Rules(
            participants=view.participants,
            shape=view.shape,
            classes=len(view.classes),
            views=view.views,
            ciphers=(own, plain) if view.plain_uploads else (own,),
        )
    return Rules(
        participants=view.participants + view.outsiders,
        shape=view.shape,
        classes=len(view.classes),
        views=1,
        ciphers=(plain,) if purpose == PLAIN else (own,),
    )
