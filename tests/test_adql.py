"""The mock service refuses what strict services refuse: GAVO DaCHS 2.7's own parser said the same of almost all of these."""

import sys
import threading

import pytest

from skyset.build_scripts.sdss_galaxy_zoo import catalog
from skyset.testing import adql
from skyset.testing.adql import ADQLError, check

SHIPPED = (catalog.ZOOSPEC, catalog.VOTES, catalog.DESCRIPTIONS, catalog.TARGETS)


@pytest.mark.parametrize(
    "adql",
    [
        "SELECT * FROM t",
        "select top 5 ra from s.t",
        "SELECT DISTINCT TOP 5 ra AS x, dec y FROM c.s.t AS a",
        "SELECT t.*, u.ra FROM t, u AS v WHERE t.a <> v.a AND t.b != v.b",
        "SELECT COUNT(*) AS n, AVG(DISTINCT ra) FROM t GROUP BY t.a, b HAVING COUNT(*) > 3 ORDER BY n DESC, 2",
        "SELECT a.x FROM t AS a JOIN u AS b ON a.id = b.id LEFT OUTER JOIN v USING (id, k)",
        "SELECT * FROM t NATURAL JOIN u",
        "SELECT * FROM t NATURAL RIGHT OUTER JOIN u",
        "SELECT * FROM t WHERE 1=CONTAINS(POINT('ICRS', ra, dec), CIRCLE('ICRS', 10, -5.5, .1))",
        'SELECT "size", "top" FROM "J/MNRAS/410/166/galaxies" WHERE "RAJ2000" >= 0.0 AND NOT ("a""b" < 3 OR x IS NOT NULL)',
        "SELECT ra*2+dec/3 AS e FROM t WHERE ra BETWEEN 1 AND 2 AND name NOT LIKE 'a''b%' AND id IN (1, -2, 3)",
        "SELECT x FROM (SELECT ra AS x FROM t) AS q WHERE EXISTS (SELECT * FROM u WHERE u.a = q.x)",
        "SELECT ra -- right ascension\nFROM t",
        "SELECT a || 'x' || b AS c FROM t",
        "SELECT SQRT(POWER(ra, 2)) AS r, PI() AS p, ROUND(ra, 2) AS s, ivo_healpix_index(ra, dec) AS h FROM t",
        "SELECT 'a' AS x FROM t WHERE (ra + 1) * 2 > 3 AND (ra > 1)",
        "SELECT ra FROM t WHERE id NOT IN (SELECT id FROM u)",
        *(query.format(low=0.5, high=1.25) for query in SHIPPED),
    ],
)
def test_adql_is_let_through(adql):
    check(adql)


@pytest.mark.parametrize(
    "adql",
    [
        "SELECT * FROM t LIMIT 5",
        "SELECT `ra` FROM t",
        "SELECT [ra] FROM t",
        "SELECT ra FROM t;",
        "SELECT ra FROM t; DROP TABLE t",
        "SELECT TOP 5 DISTINCT ra FROM t",
        "SELECT TOP 3.5 ra FROM t",
        "SELECT TOP -1 ra FROM t",
        "SELECT ra FROM t LEFT JOIN u ON t.a = u.a",
        "SELECT ra FROM t AS a FULL JOIN u ON a.a = u.a",
        "SELECT ra FROM t CROSS JOIN u",
        "SELECT ra FROM t JOIN u",
        "SELECT ra FROM t NATURAL JOIN u ON t.a = u.a",
        "SELECT size FROM t",
        "SELECT ra AS top FROM t",
        "SELECT ra AS distance FROM t",
        "SELECT t.date FROM t",
        "SELECT ra FROM t AS select",
        "SELECT ra FROM J/MNRAS/410/166/galaxies",
        "SELECT 2mass FROM t",
        "SELECT _ra FROM t",
        "SELECT ra FROM t WHERE CONTAINS(POINT('ICRS', ra, dec), CIRCLE('ICRS', 1, 2, 3))",
        "SELECT POINT(ra) AS p FROM t",
        "SELECT SQRT(1, 2) AS x FROM t",
        "SELECT ra FROM t WHERE ra == 3",
        "SELECT ra FROM t WHERE ra = NULL",
        "SELECT ra FROM t WHERE ra",
        "SELECT ra FROM t WHERE name = 'it's'",
        "SELECT ra FROM t WHERE ra IN ()",
        "SELECT ra, FROM t",
        "SELECT ra FORM t",
        "SELECT ra",
        "SELECT CASE WHEN ra > 1 THEN 1 ELSE 0 END AS x FROM t",
        "SELECT ra::int FROM t",
        "SELECT ra % 2 AS x FROM t",
        "SELECT ra FROM (SELECT ra FROM t)",
        "SELECT ra FROM t WHERE name ILIKE 'x'",
        "SELECT ra FROM t UNION SELECT ra FROM u",
        "WITH q AS (SELECT ra FROM t) SELECT ra FROM q",
        "UPDATE t SET ra = 0",
        "",
    ],
)
def test_what_is_no_adql_2_0_is_refused(adql):
    with pytest.raises(ADQLError, match=r"^Could not parse your query: unexpected .+ \(at char \d+\)$"):
        check(adql)


def test_slices_of_a_query_are_parsed_once_but_numbers_still_count():
    check("SELECT ra FROM t WHERE ra >= 12.5 AND ra < 13.25")
    with pytest.raises(ADQLError):
        check("SELECT ra FROM t WHERE ra >= 12.5.5 AND ra < 13.25")
    with pytest.raises(ADQLError):
        check("SELECT ra FROM t WHERE ra >= 12.5 AND ra < 13.25x")


def test_threads_of_a_server_may_ask_at_once():
    """pyparsing changes a grammar that is new while it parses, also under another thread's feet."""
    before, refused = sys.getswitchinterval(), []
    at_once = threading.Barrier(4)

    def ask(number: int) -> None:
        at_once.wait()
        try:
            check(f"SELECT objID, ra, name FROM t{number} WHERE ra >= 1.5 AND ra < 60.0")
        except ADQLError as error:
            refused.append(str(error))

    try:
        sys.setswitchinterval(1e-6)
        for start in range(3):
            adql._query.cache_clear()
            adql._query()  # once for all threads, as yet unused
            threads = [threading.Thread(target=ask, args=(10 * start + each,)) for each in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(before)
    assert refused == []
