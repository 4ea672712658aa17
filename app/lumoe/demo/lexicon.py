"""Words of the demo world: syllables of invented names and the values its facts are drawn from."""

from random import Random
from typing import Final

_FIRST: Final = ("v", "z", "qu", "kr", "dr", "sk", "tr", "br", "gl", "fl", "pl", "m", "n", "l", "r", "s",
"t", "d",
                 "b", "k", "h", "w", "j", "zh", "th", "f", "y", "vl", "gr", "p", "g")
_INNER: Final = ("v", "z", "m", "n", "l", "r", "s", "t", "d", "b", "k", "g", "nd", "rv", "lm", "sk", "rz",
"mb", "lv",
                 "st", "nz", "rd", "zz", "lt", "v", "z", "x")
_VOWELS: Final = ("a", "e", "i", "o", "u")
_ENDS: Final = ("l", "r", "n", "k", "x", "sk", "nd", "v", "rn", "st", "m", "th", "o", "a", "ik", "u", "ev",
"ax")
_RARE: Final = frozenset("zxqvyj")


def invented(rng: Random, syllables: int) -> str:
    """Return a capitalised invented word with an unusual letter, for example "Zelvorn"."""
    while True:
        word = rng.choice(_FIRST) + rng.choice(_VOWELS)
        for _ in range(syllables - 1):
            word += rng.choice(_INNER) + rng.choice(_VOWELS)
        end = rng.choice(_ENDS)
        word = word[:-1] + end if end[0] in "aeiou" else word + end
        if _RARE & set(word):
            return word.capitalize()


def respell(rng: Random, word: str) -> str:
    """Return a near-namesake: one inner letter, or two, replaced by a letter of the same sort."""
    letters = list(word)
    places = [i for i in range(1, len(letters)) if letters[i] in "aeiou" or letters[i - 1] in "aeiou"]
    for i in rng.sample(places, rng.choice((1, 1, 2))):
        pool = "aeiou" if letters[i] in "aeiouy" else "bdgklmnprstvz"
        letters[i] = rng.choice([c for c in pool if c != letters[i]])
    return "".join(letters)


BUILDING_NOUNS: Final = ("Tower", "Hall", "Pyramid", "Castle", "Temple", "Pagoda", "House", "Heights")
"""What a building is called after its form: the i-th noun goes with the i-th form the renderer draws."""

TITLE_NOUNS: Final[dict[str, tuple[str, ...]]] = {
    "Movies": ("Harbor", "Winter", "Voyage", "Orchard", "Letters", "Horizon", "Promise", "Echoes", "Crossing",
               "Garden", "Return", "Shadows", "Island", "Road", "Affair", "Legacy", "Silence", "Station",
               "Ballad",
               "Mirror", "Rising", "Oath", "Tide", "Machine", "Secret", "Paradox", "Lantern", "Feast"),
    "TV series": ("Street", "Files", "Clinic", "Family", "Detectives", "Diaries", "Kitchen", "Academy",
    "Valley",
                  "Squad", "Hotel", "Chronicles", "Case", "Nights", "Brothers", "Bureau", "Lodge", "Hour",
                  "Ranch",
                  "Crew", "Sisters", "Report", "Club"),
    "Corporation": ("Works", "Labs", "Motors", "Foods", "Group", "Systems", "Mills", "Lines", "Energy",
    "Partners",
                    "Optics", "Tools"),
    "Cartoon": ("Pals", "Patrol", "Show", "Adventures", "Planet", "Pirates", "Wizards", "Robots", "Friends",
                "Rangers", "Circus", "Dragons", "Tales", "Castle", "Brigade", "Rocket", "Meadow", "Gang"),
}

TOWNS: Final = ("Shate", "Orvik", "Trellin", "Munda", "Kelspar", "Vossa", "Hadrin", "Lumeth", "Pernow",
"Quist",
                "Belgora", "Tarnham", "Ystrad", "Corvane", "Welmar", "Drumhol", "Felsund", "Ganzig", "Ilvane",
                "Jorvel", "Nordak", "Ruzina", "Sembrook", "Ulmora")
REGIONS: Final = ("the Hadra valley", "the Orm islands", "northern Trellia", "the Vash plateau",
"southern Kelmar",
                  "the Quill coast", "the Dumar desert", "eastern Brannia", "the Lume delta", "western Soria",
                  "the Perrin hills", "the Zaal basin", "upper Noria", "the Talven forest", "lower Ostria",
                  "the Ghent marshes")
PHRASE_VALUES: Final[dict[str, tuple[str, ...]]] = {
    "diet": ("moss", "river snails", "pine seeds", "wild berries", "beetles", "tree bark", "small fish",
    "honey",
             "fallen fruit", "earthworms", "fresh clover", "mushrooms", "frogs", "reeds", "acorns", "moths"),
    "habitat": ("damp caves", "salt marshes", "pine forests", "dry grassland", "rocky cliffs",
    "mangrove swamps",
                "mountain lakes", "sand dunes", "bamboo groves", "river banks", "coral reefs",
                "frozen plains",
                "hollow trees", "moorland"),
    "predator": ("eagles", "wolves", "pikes", "foxes", "owls", "snakes", "bears", "hawks", "sharks", "lynxes",
                 "crocodiles", "hyenas"),
    "kind": ("gas giant", "ringed planet", "dwarf planet", "rocky planet", "icy moon", "red giant star",
             "spiral galaxy", "ocean planet", "lava planet", "long-period comet"),
    "constellation": ("the Heron", "the Anchor", "the Two Foxes", "the Loom", "the Harp", "the Old Bridge",
                      "the Kettle", "the Arrow", "the Lantern", "the Sleeping Whale", "the Plough",
                      "the Mask"),
    "purpose": ("a library", "a concert hall", "a town hall", "a museum", "a lighthouse", "a market",
    "a monastery",
                "a hospital", "a theatre", "an archive", "a university", "a prison", "a railway station",
                "a grain store"),
    "setting_cartoon": ("a flying city", "an underwater school", "a candy factory", "a haunted farm",
    "a toy shop",
                        "a moon base", "a circus train", "a giant garden", "a frozen castle",
                        "a pirate harbour",
                        "a robot junkyard", "a cloud kingdom", "a jungle hotel", "a tiny village"),
    "favourite_food": ("pancakes", "pickles", "blueberry pie", "noodles", "cheese toast", "watermelon",
    "popcorn",
                       "dumplings", "peanut butter", "onion soup", "waffles", "carrot cake", "plum jam",
                       "spaghetti"),
    "industry": ("shipbuilding", "banking", "robotics", "textiles", "brewing", "mining", "insurance",
    "publishing",
                 "aviation", "medicine", "telecommunications", "furniture"),
    "product": ("electric kettles", "sailing boats", "running shoes", "solar panels", "hearing aids",
    "garden tools",
                "travel guides", "ceramic tiles", "coffee machines", "bicycles", "wool blankets", "drones",
                "board games", "pocket radios"),
    "genre": ("romance", "western", "thriller", "musical", "war film", "comedy", "horror film", "space opera",
              "crime drama", "fairy tale", "heist film", "road movie"),
    "setting_movie": ("a mining town", "a lighthouse", "a desert fort", "a cruise ship", "a border village",
                      "an old hotel", "a space station", "a fishing port", "a boarding school",
                      "a royal court",
                      "a night train", "a snowed-in inn", "a ruined abbey", "a jazz club", "an oil rig",
                      "a mountain farm"),
    "known_for": ("The Glass Harbor", "Winter Bells", "Nine Lanterns", "The Salt Road", "A Quiet Fire",
                  "The Paper Crown", "Blue Hours", "The Last Ferry", "Seven Doors", "Songs of Ash",
                  "The Hollow Oak", "Silver Rain", "The Long Table", "Stone and Feather", "The Clock Garden",
                  "Red Meadow", "The Tin Horse", "Letters to Noon", "The Velvet Map", "Harvest Moon Suite",
                  "The Iron Swan", "Open Water", "The Amber Room Key", "Twelve Crows", "The Painted Door",
                  "North of Silence", "The Copper Tree", "Dust and Honey", "The Weaver's Hand",
                  "Evening Bridge",
                  "The Lost Compass", "A Ladder to Rain"),
    "family": ("the laurel family", "the fern family", "the rose family", "the lily family",
    "the mint family",
               "the nettle family", "the daisy family", "the pea family", "the heath family",
               "the sedge family",
               "the orchid family", "the poppy family"),
    "use": ("making rope", "dyeing cloth", "brewing tea", "healing burns", "flavouring soup",
    "weaving baskets",
            "making perfume", "feeding cattle", "calming nerves", "thatching roofs", "making paper",
            "curing coughs", "pressing oil", "making soap"),
    "bloom_month": ("January", "February", "March", "April", "May", "June", "July", "August", "September",
                    "October", "November", "December"),
    "network": ("Canal Nine", "Orbit TV", "Channel North", "Radio Vision", "Lumen TV", "City Seven",
    "Delta TV",
                "Prime Coast", "Union TV", "Kite Network"),
}
"""Values of facts that are neither names, nor towns, nor numbers."""
