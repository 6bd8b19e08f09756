"""First and last names: ordinary ones, each a single token of CLIP's own vocabulary.

So a prompt has as many tokens for this world's tokenizer as for OpenAI's, and token embeddings can be carried over.
"""

import numpy as np

NAMED_PEOPLE = 400
_PAIRS_SEED = 8

_WOMEN = (
    "Abby Agnes Alice Amelia Amy Andrea Angela Anna April Audrey Barbara Becky Beth Brenda Carla Carmen Carol "
    "Cecilia Chloe Clara Daisy Dana Diana Donna Edith Elena Ella Emily Erica Esther Eva Fiona Flora Gemma Gina "
    "Grace Greta Hannah Hazel Helen Irene Iris Ivy Jane Jenny Joan Julia Karen Laura Linda"
)
_MEN = (
    "Aaron Adam Alan Albert Alex Andy Arthur Ben Bernard Brian Bruno Caleb Carl Charles Colin Craig Daniel David "
    "Dennis Derek Dylan Edgar Eric Ethan Felix Frank Fred Gary George Gordon Greg Harold Harvey Henry Howard Hugo "
    "Ivan Jacob Jason Jeremy Joel Keith Kevin Leon Louis Martin Miles Neil Oscar Walter"
)
_LAST_NAMES = (
    "Abbott Archer Atkins Baldwin Barker Barrett Baxter Becker Bennett Benson Bishop Bradley Briggs Brooks Bryant "
    "Burton Byrne Carlson Chandler Coleman Conway Connor Crane Curtis Dalton Dawson Dixon Doyle Duffy Duncan "
    "Eaton Ellis Emerson Ferguson Fischer Fleming Fletcher Flynn Foster Fowler Fraser Fuller Garner Gibbs Goodman "
    "Graves Griffin Hammond Hansen Harper Hawkins Hayes Higgins Hobbs Hoffman Holt Hopkins Horton Hubbard Hurst "
    "Ingram Jenkins Jensen Kelley Kemp Klein Lambert Larson Lowe Malone Marsh Mason Mercer Meyer Mitchell Morton "
    "Myers Nash Nielsen Nolan Norton Olsen Osborne Palmer Parsons Pearson Perkins Porter Quinn Reeves Riley Rowe "
    "Sanders Shaw Slater Sutton Tanner Vaughan Watts Webb"
)
WOMEN, MEN, LAST_NAMES = (tuple(names.split()) for names in (_WOMEN, _MEN, _LAST_NAMES))
FIRST_NAMES = (*WOMEN, *MEN)


def known_pairs() -> list[tuple[int, int]]:
    """First and last name of each person whom the base model knows, as indices: always the same."""
    pairs = np.random.default_rng(_PAIRS_SEED).permutation(len(FIRST_NAMES) * len(LAST_NAMES))[:NAMED_PEOPLE]
    return [divmod(int(pair), len(LAST_NAMES)) for pair in pairs]


def known_names() -> tuple[str, ...]:
    """Their names: "Ada Bell"."""
    return tuple(f"{FIRST_NAMES[first]} {LAST_NAMES[last]}" for first, last in known_pairs())
