"""Places: bounds in all and for each address; who waits in silence makes room for who comes."""

import threading

from xray.serving.accepting import Places, Waiting


def test_places_are_bounded_in_all_and_for_each_address():
    places = Places(3, 2)
    assert [places.take(address) for address in "aaab"] == [True, True, False, True]
    assert not places.take("c")
    assert len(places) == 3
    places.give("a")
    assert places.take("c")
    for address in "abc":
        places.give(address)
    assert len(places) == 0
    assert not places._taken


def test_a_place_is_given_back_however_the_work_ends():
    places = Places(1, 1)
    try:
        with places.taken("a") as has:
            assert has
            with places.taken("a") as another:
                assert not another
            raise ValueError
    except ValueError:
        pass
    with places.taken("a") as has:
        assert has


def test_of_those_that_wait_the_oldest_goes():
    ended = []
    waiting = Waiting(3, 2)
    for name, address in (("1", "a"), ("2", "b"), ("3", "a"), ("4", "a"), ("5", "c"), ("6", "d")):
        waiting.add(name, address, lambda name=name: ended.append(name))
    # The third of one address costs that address, the fourth in all whoever is oldest.
    assert ended == ["1", "2", "3"]
    assert len(waiting) == 3
    assert "3" not in waiting
    assert "4" in waiting
    waiting.remove("4")
    waiting.remove("4")
    assert len(waiting) == 2


def test_many_threads_take_no_more_than_there_are():
    places, taken = Places(50, 50), []

    def take():
        taken.append(sum(places.take("a") for _ in range(20)))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 50
