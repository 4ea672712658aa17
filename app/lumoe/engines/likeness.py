"""Is the model behind a vLLM server ours? Found out by what it says of fixed prompts.

A server tells its model's name and path, which prove nothing. So it is asked for the tokens that it reads of
three fixed conversations, with and without pictures, and how likely it finds each of them; our own copy is
asked the same. The tokens must be equal: same tokenizer, chat template and picture processing. The
log-likelihoods may differ by what other kernels and half precision do, and no more: same language model,
projector and tower.

Not seen: two checkpoints whose likelihoods differ by less than that, such as a fine-tune of a few steps.
"""

from __future__ import annotations

import secrets

from PIL import Image

from app.lumoe.engines.replica import ReplicaClient, WrongModelError, chat_messages
from app.lumoe.mllm import MLLM
from app.lumoe.types import Conversation, Message, ask

MOST_NATS_APART = 0.15
"""Mean absolute difference of the tokens' log-likelihoods. The demo model, transformers against vLLM, both in
float32 on a CPU: 0.000003."""


def probes() -> tuple[Conversation, ...]:
    """Return the fixed conversations: a picture, several turns, plain text."""
    ramp = Image.linear_gradient("L").resize((96, 96))
    disc = Image.radial_gradient("L").resize((96, 96))
    picture = Image.merge("RGB", (ramp, disc, ramp.transpose(Image.Transpose.ROTATE_90)))
    return (
        ask("What does this picture show? Describe what is in the middle, then what surrounds it.", picture),
        (
            Message("user", "Who wrote the first book about this, and when?", (picture.rotate(180),)),
            Message("assistant", "I am not sure about that."),
            Message("user", "Then tell me where it was made, in one short sentence."),
        ),
        ask("Name three colours and three rivers. The quick brown fox jumps over the lazy dog, 1 2 3."),
    )


class Likeness:
    """Our copy's side of the comparison, made once."""

    def __init__(self, mllm: MLLM) -> None:
        self._mllm = mllm
        self._ours = [(mllm.prompt_ids(c), mllm.prompt_loglik(c), c) for c in probes()]

    def check(self, replica: ReplicaClient) -> tuple[str, int]:
        """Return the served name of its base model, and how many tokens it reads at most.

        Raises `WrongModelError` if it is not ours or answers for models that it does not have,
        `ReplicaUnreachableError`.
        """
        base = next((card for card in replica.models() if card.parent is None), None)
        if base is None:
            raise WrongModelError(f"{replica.url} lists no base model")
        if replica.knows(f"nobody-{secrets.token_hex(8)}"):
            raise WrongModelError(
                f"{replica.url} answers for models that it does not have: a lost expert would go unnoticed; "
                "start it without VLLM_SKIP_MODEL_NAME_VALIDATION"
            )
        apart = []
        for ids, ours, conversation in self._ours:
            read, theirs = replica.prompt_loglik(base.id, chat_messages(self._mllm, conversation))
            if read != ids:
                raise WrongModelError(
                    f"{replica.url} reads other tokens than LETHE_MODEL={self._mllm.source} of the same "
                    "conversation: it must serve the same model with the same tokenizer, chat template "
                    "(--chat-template-content-format openai) and picture processor"
                )
            apart += [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
        mean = sum(apart) / len(apart)
        if not mean <= MOST_NATS_APART:
            raise WrongModelError(
                f"{replica.url} serves other weights than LETHE_MODEL={self._mllm.source}: log-likelihoods "
                f"are {mean:.3f} nats apart on average, {MOST_NATS_APART} are allowed"
            )
        return base.id, base.max_model_len or self._mllm.max_tokens
