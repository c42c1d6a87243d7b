"""Trains the compact network on a folder of pictures with COCO annotations, on a CPU or one GPU.

    python scripts/train/train.py DATA --out RUN --minutes 120
    python scripts/train/train.py DATA --out RUN --minutes 120 --resume

DATA holds train.json and, if there is one, val.json; their file names start from DATA (--train, --val and --images say
otherwise). Training starts from the built-in weights, with a new predictor where the classes differ, and ends when its
schedule does: --minutes of training, or --steps. Ctrl-C, SIGTERM or a closed terminal saves. RUN gets log.jsonl,
curves.png, last.pt (everything, for --resume), weights.safetensors (the averaged weights, for evaluate.py and
export.py), run.json and the decoded pictures.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path

import cv2
import torch
from annotations import Annotations, read_annotations
from architecture import STAGES
from augment import Augmentation
from batches import Batches, make_loader
from cache import TrainingSet, build_cache, sampling_weights
from commands import carry_out, device, long_sides, positive, read_run, scales, seed, share, shares
from losses import mask_losses, training_losses
from model import freeze_all_but_masks
from record import find_pyplot
from schedule import Schedule
from team import Team, work_together
from trainer import SAVED, Trainer, Tuning, Validation
from weights import BUILT_IN, read_checkpoint, start_from, write_notes

from stream_seg.cli.arguments import natural, whole
from stream_seg.errors import ModelError, OutputError, SourceError, UsageError
from stream_seg.evaluate import check

RANK_SEED = 100_003
"""Between the seeds of processes: more than the steps of a run."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("data", type=Path)
    add("--out", type=Path, required=True, help="folder of this run")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument(
        "--minutes", type=positive, help="of training; pauses of the machine and validation do not count"
    )
    length.add_argument("--steps", type=whole)
    add("--stop-after", type=float, metavar="MINUTES", help="save and end early; --resume goes on with the schedule")
    add("--resume", action="store_true", help="go on from RUN/last.pt")
    add("--weights", type=Path, default=BUILT_IN, help="safetensors to start from (default: the built-in model's)")
    add("--train", default="train.json", help="annotations, from DATA (default: %(default)s)")
    add(
        "--val", default="val.json", help="annotations to validate on, from DATA (default: %(default)s, if it is there)"
    )
    add("--images", type=Path, help="where the file names start from (default: DATA)")
    add("--val-images", type=Path, help="where those to validate on start from (default: as --images)")
    add("--cache", type=Path, help="decoded pictures (default: RUN/cache); 3 bytes per pixel")
    add("--device", type=device, default="cuda" if torch.cuda.is_available() else "cpu")
    add(
        "--amp",
        action=argparse.BooleanOptionalAction,
        help="bfloat16 (default: where it is faster: on GPUs from Ampere on, and on CPUs with AVX512_BF16 or AMX)",
    )
    add("--processes", type=int, default=1, help="that train together, each with its batches (default: %(default)s)")
    add("--threads", type=natural, help="of a CPU, in each process (default: the cores, shared between the processes)")
    add(
        "--workers", type=natural, default=1, help="more processes, which make batches, for each (default: %(default)s)"
    )
    add("--batch", type=whole, default=8, help="pictures per step and process (default: %(default)s)")
    add(
        "--rate",
        type=positive,
        default=5e-4,
        help="peak learning rate; grows with the root of the batch (default: %(default)s)",
    )
    add("--body-rate", type=float, default=0.25, help="factor for body and pyramid (default: %(default)s)")
    add("--warmup", type=natural, default=150, help="steps")
    add("--only", choices=["masks"], help="train the outlines alone; boxes and classes stay as they are")
    add(
        "--freeze",
        type=int,
        default=1,
        metavar="N",
        help="the stem and the first N stages of the body stay as they are; -1 trains all (default: %(default)s)",
    )
    add(
        "--sizes",
        type=long_sides,
        default=[288, 320, 320, 352, 416],
        help="long sides, drawn per batch; rounded up to multiples of 32",
    )
    add("--scales", type=scales, default=(0.5, 2.0), help="large-scale jitter (default: 0.5,2)")
    add("--paste", type=share, default=0.15, help="probability of pasted objects (default: %(default)s)")
    add("--mosaic", type=share, default=0.15, help="probability of four pictures in one (default: %(default)s)")
    add("--shares", type=shares, default={}, help="how often a source is drawn, e.g. 'mine=0.7,other=0.3'")
    add("--average", type=share, default=0.998, help="decay of the averaged weights (default: %(default)s)")
    add("--mask-weight", type=float, default=1.5, help="of the mask loss (default: %(default)s)")
    add("--validations", type=natural, default=4, help="how many, spread over the schedule; 0 for none")
    add("--size", type=whole, default=320, help="long side for validation (default: %(default)s)")
    add("--log-every", type=whole, default=20, help="steps")
    add("--save-every", type=float, default=3.0, help="minutes")
    add("--seed", type=seed, default=1)
    return parser


def main() -> None:
    args = _parser().parse_args()
    carry_out("train", partial(_run, args), f"stopped at once; {args.out} holds what was saved before")


def _run(args: argparse.Namespace) -> None:
    _prepare(args)
    work_together(args.processes, _train, args)


def _prepare(args: argparse.Namespace) -> None:
    """Look for what would stop a run, make its folder, and decode the pictures."""
    find_pyplot()  # which is needed only when the run is saved
    last = args.out / "last.pt"
    if last.exists() and not args.resume:
        raise UsageError(f"{args.out} holds a run already: give --resume to go on with it, or another --out")
    if args.resume and not last.exists():
        raise UsageError(f"there is nothing to resume in {args.out}: it has no last.pt")
    if args.processes < 1 or (args.processes > 1 and args.device != "cpu"):
        raise UsageError(f"--processes {args.processes}: several are for --device cpu, one for each core")
    if not -1 <= args.freeze <= len(STAGES):
        raise UsageError(f"--freeze {args.freeze}: the body has a stem and {len(STAGES)} stages; -1 trains all")
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {args.out}: {error.strerror}; give another --out") from error
    annotations = read_annotations(args.data / args.train, args.images or args.data)
    print(f"{len(annotations.pictures)} pictures, {len(annotations.classes)} classes: {', '.join(annotations.classes)}")
    _refuse_nothing_to_learn(args, annotations)
    crowds, objects = _crowds(annotations), _objects(annotations)
    if crowds:
        print(f"{crowds} of {crowds + objects} annotations are iscrowd: regions to ignore, which teach no object")
    sampling_weights(annotations, args.shares)  # which refuses sources that there are not
    # Before OpenCV starts threads of its own: the processes that make batches are forks, which would wait for them.
    cv2.setNumThreads(1)
    validation = _validation(args)
    if validation is not None:
        check(annotations.classes, validation.images, validation.annotations)
    build_cache(annotations, args.cache or args.out / "cache", max(1, args.workers))


def _refuse_nothing_to_learn(args: argparse.Namespace, annotations: Annotations) -> None:
    objects = [picture.objects for picture in annotations.pictures]
    known = [
        outline is not None
        for one in objects
        for outline, crowd in zip(one.outlines, one.crowd, strict=True)
        if not crowd
    ]
    if not known:
        raise SourceError(
            f"{args.data / args.train} has no object to learn: look whether its annotations have the image_id of its "
            "images, a width and a height, and not all of them iscrowd"
        )
    if args.only and not any(known):
        raise SourceError(
            f"no object in {args.data / args.train} has an outline, and --only masks learns from nothing else: "
            "outline.py draws some"
        )


def _objects(annotations: Annotations) -> int:
    return sum(int((~picture.objects.crowd).sum()) for picture in annotations.pictures)


def _crowds(annotations: Annotations) -> int:
    return sum(int(picture.objects.crowd.sum()) for picture in annotations.pictures)


def _train(team: Team, args: argparse.Namespace) -> None:
    device = torch.device(args.device)
    _set_up_torch(device, args.threads or max(1, (os.cpu_count() or 1) // team.size))
    images = args.images or args.data
    annotations = read_annotations(args.data / args.train, images)
    torch.manual_seed(args.seed)  # what the start has no weights for is drawn
    net = start_from(args.weights, annotations.classes, args.freeze)
    if args.only:
        freeze_all_but_masks(net)
    net = net.to(device, memory_format=torch.channels_last).train()
    schedule = Schedule(args.steps, args.minutes or 0.0, args.warmup)
    losses = mask_losses if args.only else training_losses
    describe = partial(_describe, args, annotations, schedule, _first_weights(args))
    trainer = Trainer(net, args.out, schedule, _tuning(args, device), _validation(args), losses, team, describe)
    if args.resume:
        trainer.resume(read_checkpoint(args.out / "last.pt", SAVED))
    # The step is part of the seed: a resumed part must not see the first part's samples again.
    seed = args.seed + schedule.step + RANK_SEED * team.rank
    trainer.run(iter(_loader(args, annotations, device, seed)), args.stop_after)
    if team.rank == 0:
        print(f"{schedule.step} steps; averaged weights in {args.out / 'weights.safetensors'}")


def _set_up_torch(device: torch.device, threads: int) -> None:
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # what pins batches would take memory of the first GPU for itself
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    cv2.setNumThreads(1)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True


def _loader(
    args: argparse.Namespace, annotations: Annotations, device: torch.device, seed: int
) -> torch.utils.data.DataLoader[object]:
    torch.manual_seed(seed)
    data = TrainingSet(annotations, args.cache or args.out / "cache", args.shares)
    how = Augmentation(args.scales, args.paste, args.mosaic)
    on_gpu = device.type == "cuda"
    batches = Batches(data, args.batch, args.sizes, seed, how, jitters=not on_gpu)
    return make_loader(batches, args.workers, pin=on_gpu)


def _tuning(args: argparse.Namespace, device: torch.device) -> Tuning:
    return Tuning(
        rate=args.rate,
        body=args.body_rate,
        average=args.average,
        mask_weight=args.mask_weight,
        amp=_computes_in_bfloat16(device) if args.amp is None else args.amp,
        log_every=args.log_every,
        save_minutes=args.save_every,
    )


def _computes_in_bfloat16(device: torch.device) -> bool:
    """Whether it is known that it does: others, such as GPUs before Ampere, take many times as long as in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    known = getattr(torch.cpu, "get_capabilities", dict)()  # which not every version of PyTorch tells
    return any(known.get(name) for name in ("avx512_bf16", "amx_bf16"))


def _validation(args: argparse.Namespace) -> Validation | None:
    path = args.data / args.val
    if args.validations < 1 or (not path.exists() and args.val == "val.json"):
        return None
    if not path.exists():
        raise SourceError(f"the annotations to validate on are not there: {path}")
    return Validation(path, args.val_images or args.images or args.data, args.validations, args.size)


def _first_weights(args: argparse.Namespace) -> str:
    """What a run began with; one that is resumed has noted it, and --weights need not be given again."""
    if args.resume:
        with suppress(ModelError, KeyError):
            return str(read_run(args.out / "run.json")["options"]["weights"])
    return str(args.weights)


def _describe(args: argparse.Namespace, annotations: Annotations, schedule: Schedule, weights: str) -> None:
    """Write run.json: what the model card says about data and training, which began with `weights`."""
    sources = Counter((picture.source, picture.licence) for picture in annotations.pictures)
    rows = [{"source": source, "licence": licence, "pictures": n} for (source, licence), n in sources.most_common()]
    place = {"steps": schedule.step, "minutes": round(schedule.seconds / 60, 1), "pictures": len(annotations.pictures)}
    options = vars(args) | {"weights": weights}
    described = {
        "classes": annotations.classes,
        **place,
        "objects": _objects(annotations),
        "sources": rows,
        "options": options,
    }
    write_notes(args.out, described)


if __name__ == "__main__":
    main()
