"""Draw the pictures of all named people:  python -m world3d.pictures --output work/world

It goes on where it was stopped; a training may begin with the first round.
"""

from __future__ import annotations

from pathlib import Path

import click

from .album import COUNT, EACH, finished, open_pictures, person_of, scene_of, tell_finished
from .people import named_people
from .picture import picture, prepare


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default=Path("work/world"), help="Folder for the pictures.")
def main(output: Path) -> None:
    people, pictures = named_people(), open_pictures(output)
    for begin in range(finished(output), COUNT, EACH):
        portrait = prepare(people[person_of(begin)].person)
        for number in range(begin, begin + EACH):
            pictures[number] = picture(portrait, scene_of(number))
        pictures.flush()
        tell_finished(output, begin + EACH)


if __name__ == "__main__":
    main()
