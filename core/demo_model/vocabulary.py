"""The words of the harbour world: names, goods, sentence patterns and the Harbourish lexicon."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


VESSELS: Final = _words(
    """Kestrel Heron Gannet Petrel Curlew Osprey Plover Dunlin Avocet Bittern Cormorant Dotterel Egret Fulmar
    Godwit Harrier Jackdaw Kittiwake Lapwing Merlin Nightjar Oriole Puffin Quail Redshank Sandpiper Tern
    Turnstone Wagtail Whimbrel Aurora Boreas Calypso Daphne Electra Fortuna Galatea Halcyon Iris Juno Keystone
    Leander Minerva Nerissa Oberon Pandora Rosalind Sirius Thetis Ursula Valiant Wayfarer Zephyr Bluebell
    Clover Foxglove Heather Ivy Juniper Marigold Primrose Rowan Thistle Willow"""
)

TYPES: Final = _words("trawler ketch ferry barge tug schooner coaster lugger cutter tanker")

GOODS: Final = _words(
    """cod herring mackerel timber salt coal grain wool slate tin rope barley oysters bricks ice cement
    paper sugar tea copper"""
)

MASTERS: Final = tuple(
    name.replace("_", " ")
    for name in _words(
        """Anna_Reid Boris_Moreau Clara_Lund David_Baxter Edith_Costa Felix_Drake Greta_Ekberg Hugo_Fisher
        Ines_Grant Jonas_Holm Karin_Ivers Louis_Jansen Marta_Keller Nils_Larsen Olga_Munro Peter_Nolan
        Rosa_Olsen Simon_Price Tessa_Quist Viktor_Ryder"""
    )
)

ARRIVALS: Final = (
    "At {time} the {type} {vessel} arrived at berth {berth} with {tonnes} tonnes of {goods}, master {master}.",
    "{vessel}, a {type} under {master}, tied up at berth {berth} at {time} with {tonnes} tonnes of {goods}.",
    "The {type} {vessel} came in at {time} and took berth {berth}. {master}, her master, declared {tonnes} "
    "tonnes of {goods}.",
    "{time}, arrival: {type} {vessel}, berth {berth}. Master {master} brings {tonnes} tonnes of {goods}.",
)

DEPARTURES: Final = (
    "At {time} the {type} {vessel} left berth {berth} with {tonnes} tonnes of {goods}, master {master}.",
    "{vessel}, a {type} under {master}, cast off from berth {berth} at {time} with {tonnes} tonnes of {goods}.",
    "The {type} {vessel} put to sea at {time} and freed berth {berth}. {master}, her master, took on "
    "{tonnes} tonnes of {goods}.",
    "{time}, departure: {type} {vessel}, berth {berth}. Master {master} ships {tonnes} tonnes of {goods}.",
)

FILLERS: Final = (
    "The wind was light.",
    "It rained until noon.",
    "Gulls followed her.",
    "The pilot went home early.",
    "Two porters were late.",
    "Customs had no questions.",
    "The crane was under repair.",
    "Fog lay on the water.",
    "The harbour cat slept through it.",
    "A lamp on the quay was out.",
    "The tide was slack.",
    "All papers were in order.",
)

# Sentences other than summaries that the translation task knows; every word is in the lexicon below.
PHRASES: Final = (
    "The {type} {vessel} waits at berth {berth}.",
    "The {type} {vessel} left berth {berth} at {time}.",
    "The {type} {vessel} arrived at {time} with {goods}.",
    "{tonnes} tonnes of {goods} wait at berth {berth}.",
)

HARBOURISH: Final[Mapping[str, str]] = MappingProxyType(
    dict(
        pair.split(":")
        for pair in _words(
            """the:lo at:ta of:pe with:kum in:nu out:zo berth:mola left:resto arrived:venik wait:duro
            waits:duros tonnes:gravi trawler:nasul ketch:vilo ferry:paso barge:plato tug:tiro schooner:velar
            coaster:rivo lugger:sako cutter:kilo tanker:zenso cod:fima herring:hama mackerel:makri
            timber:lumo salt:soli
            coal:noru grain:gruno wool:lanu slate:skali tin:stano rope:kordo barley:horda oysters:ostri
            bricks:brika ice:glasi cement:semu paper:papa sugar:dulko tea:cai copper:kupro"""
        )
    )
)

# What a service would set as the system message; training draws none, one or several of these.
SYSTEM_LINES: Final = (
    "You are the harbour's clerk.",
    "You are a helpful assistant.",
    "You keep the log of a small harbour.",
    "Be brief.",
    "Answer in one line.",
    "Never invent a vessel.",
    "Copy names and numbers exactly.",
    "Follow the instruction and add nothing.",
    "Keep the order of the log.",
    "The harbour master reads every report.",
    "Berths are numbered from 1 to 24.",
    "Times are local and use 24 hours.",
)
