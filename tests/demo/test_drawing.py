"""What the report draws: columns follow dependencies, boxes do not overlap, spans add up."""

from hypothesis import given
from hypothesis import strategies as st

from semantic_parrot.server.demo.drawing import NODE_HEIGHT, NODE_WIDTH, Span, dag, ticks


@st.composite
def programs(draw):
    names = [f"v{i}" for i in range(draw(st.integers(1, 12)))]
    return {name: tuple(draw(st.sets(st.sampled_from(names[:i])))) if i else () for i, name in enumerate(names)}


@given(programs())
def test_a_call_stands_right_of_what_it_reads_and_alone(reads):
    picture = dag(reads, {})
    boxes = {box.name: box for box in picture.boxes}
    assert set(boxes) == set(reads)
    for name, sources in reads.items():
        for source in sources:
            assert boxes[source].x + NODE_WIDTH < boxes[name].x
    places = list(boxes.values())
    for i, a in enumerate(places):
        assert 0 <= a.x <= picture.width - NODE_WIDTH
        assert 0 <= a.y <= picture.height - NODE_HEIGHT
        for b in places[:i]:
            assert abs(a.x - b.x) >= NODE_WIDTH or abs(a.y - b.y) >= NODE_HEIGHT
    assert len(picture.edges) == sum(map(len, reads.values()))


def test_a_span_ends_where_its_parts_do():
    assert Span("a", 1.0, (("queued", 0.25), ("decode", 0.5))).end == 1.75


@given(st.floats(0.001, 5000))
def test_ticks_are_few_and_cover_the_run(longest):
    found = ticks(longest)
    assert found[0] == 0
    assert len(found) <= 8
    assert found[-1] <= longest + 0.01
