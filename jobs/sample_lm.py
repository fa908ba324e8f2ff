"""Write text with a trained language model, to see that training did something.

    python jobs/sample_lm.py --model=ptx-runs/<run id>/model --prompt="def "

Takes a whole model, an adapter or trained parameters over their base, or the built-in model.
Needs neither ptx submit nor a GPU; `ptx submit jobs/sample.yaml` runs it elsewhere.
"""

import os
from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.errors import UserError
from orchestrator.training.args import parse_args
from orchestrator.training.entrypoint import run
from orchestrator.training.language.generation import Sampler, sampled_text
from orchestrator.training.language.saved import load_saved
from orchestrator.training.metrics import say


class Args(BaseModel):
    """What a spec's entrypoint.args may say. `ptx validate` runs this class alone, without the
    script around it: inside, use only Python's builtins, typing and pydantic.
    """

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="what training has left, a folder or hub name")
    base: str | None = Field(None, description="of an adapter or trained parameters; their own")
    tokenizer: str | None = Field(None, description="bytes, folder or hub name; the model's own")
    prompt: str = Field("def ", description="what the text begins with")
    length: int = Field(400, ge=1, description="tokens to write at most")
    temperature: float = Field(0.8, ge=0, description="0 always takes the likeliest token")
    top_p: float = Field(1.0, gt=0, le=1, description="share of the likeliest tokens to draw from")
    seed: int = Field(0, ge=0, description="the same seed writes the same text")


def main(argv: Sequence[str]) -> int:
    args = parse_args(Args, argv, description="Write text with a trained language model.")
    if int(os.environ.get("RANK", "0")) != 0:
        return 0  # one rank is enough
    if args.model is None:
        raise UserError("no model is named", hint="give --model=<run folder>/model")
    gpu = torch.cuda.is_available()
    saved = load_saved(
        args.model,
        base=args.base,
        tokenizer=args.tokenizer,
        dtype=torch.bfloat16 if gpu else torch.float32,
    )
    model = saved.model.to("cuda") if gpu else saved.model
    say(f"{args.model}: {saved.kind}, {sum(p.numel() for p in model.parameters()):,} parameters")
    say(
        sampled_text(
            model,
            saved.tokenizer,
            args.prompt,
            args.length,
            seed=args.seed,
            sampler=Sampler(args.temperature, args.top_p),
        )
    )
    return 0


if __name__ == "__main__":
    run(main)
