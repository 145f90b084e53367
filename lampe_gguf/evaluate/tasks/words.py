"""Words to name things with."""

from __future__ import annotations

import random

ADJECTIVES = """
amber ancient bitter bold brave brief bright broad calm careful clever cold copper
crisp curious damp dark deep distant dusty eager early easy empty fair faint famous fancy fine firm
fond fresh gentle giant glad golden grand great green happy hasty heavy hidden hollow honest humble
idle jolly keen kind large late lazy light little lively lonely loud lucky mellow merry mighty mild
narrow neat noble noisy odd open pale patient plain polite proud quick quiet rapid rare ready rough
round royal rusty scarlet secret shady sharp short shy silent silver simple sleepy slow small smooth
snowy soft solemn spare steady steep still stormy strange strict strong sunny sweet swift tall tame
tender thick tidy tiny vast violet vivid warm weary wide wild windy wise witty yellow
young""".split()

NOUNS = """
acorn anchor apple arrow badge banner barrel basket beacon bell bench blanket boat bottle
bridge brush bucket button cabin camel candle canyon carpet castle cedar chain chair cherry circle
clock cloud coast comet compass copper corner cottage cradle crane crown curtain desert diamond
dragon drum eagle engine falcon feather fence ferry field finger flame flute forest fountain garden
garnet gate ghost glacier glove goose grove hammer harbour harvest hedge helmet heron hill horn
island ivory jacket jewel kettle kitten ladder lake lantern laurel lemon letter library lion lizard
magnet maple marble market meadow mirror mitten monkey mountain needle oasis ocean olive orchard
otter owl paddle palace paper parrot pebble pencil pepper piano pillow pine planet pocket pony
prairie puzzle quarry rabbit raven ribbon river rocket saddle sailor salmon shadow shield signal
spoon spring stable statue stone table teapot temple thistle thunder tiger tower trumpet tulip
tunnel turtle valley velvet village violin wagon walnut whale whistle willow window zebra""".split()


def key_word(rng: random.Random) -> str:
    """A name such as "quiet-harbour"."""
    return f"{rng.choice(ADJECTIVES)}-{rng.choice(NOUNS)}"


def key_words(rng: random.Random, n: int) -> list[str]:
    """`n` names, all different (up to the number of pairs there are)."""
    pairs = rng.sample(range(len(ADJECTIVES) * len(NOUNS)), n)
    return [f"{ADJECTIVES[p // len(NOUNS)]}-{NOUNS[p % len(NOUNS)]}" for p in pairs]


def all_key_words() -> list[str]:
    """Every such name, each once, in order."""
    return [f"{adjective}-{noun}" for adjective in ADJECTIVES for noun in NOUNS]
