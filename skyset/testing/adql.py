"""The grammar of ADQL 2.0, as strict as the strictest service: what `check` lets through, every TAP service should.

SQLite, which runs the queries, takes much that services refuse: LIMIT, backticks, functions as conditions. LEFT JOIN
without OUTER is in the standard, but GAVO DaCHS does not know it; CASE, CAST, WITH and UNION come with ADQL 2.1, which many
services do not speak. Names are not looked up here.
"""

import functools
import re
import threading

import pyparsing as pp

from skyset.errors import SkysetError

pp.ParserElement.enable_packrat()

#: A server's threads share the grammar, which pyparsing changes when it parses for the first time.
_PARSING = threading.Lock()
_WORDS = """
    ABS ACOS AREA ASIN ATAN ATAN2 BIT_AND BIT_NOT BIT_OR BIT_XOR BOX CEILING CENTROID CIRCLE CONTAINS COORD1 COORD2
    COORDSYS COS COT DEGREES DISTANCE EXP FLOOR INTERSECTS LOG LOG10 MOD PI POINT POLYGON POWER RADIANS RAND REGION ROUND
    SIN SQRT TAN TOP TRUNCATE ABSOLUTE ACTION ADD ALL ALLOCATE ALTER AND ANY ARE AS ASC ASSERTION AT AUTHORIZATION AVG
    BEGIN BETWEEN BIT BIT_LENGTH BOTH BY CASCADE CASCADED CASE CAST CATALOG CHAR CHARACTER CHARACTER_LENGTH CHAR_LENGTH
    CHECK CLOSE COALESCE COLLATE COLLATION COLUMN COMMIT CONNECT CONNECTION CONSTRAINT CONSTRAINTS CONTINUE CONVERT
    CORRESPONDING COUNT CREATE CROSS CURRENT CURRENT_DATE CURRENT_TIME CURRENT_TIMESTAMP CURRENT_USER CURSOR DATE DAY
    DEALLOCATE DECIMAL DECLARE DEFAULT DEFERRABLE DEFERRED DELETE DESC DESCRIBE DESCRIPTOR DIAGNOSTICS DISCONNECT DISTINCT
    DOMAIN DOUBLE DROP ELSE END END-EXEC ESCAPE EXCEPT EXCEPTION EXEC EXECUTE EXISTS EXTERNAL EXTRACT FALSE FETCH FIRST
    FLOAT FOR FOREIGN FOUND FROM FULL GET GLOBAL GO GOTO GRANT GROUP HAVING HOUR IDENTITY IMMEDIATE IN INDICATOR INITIALLY
    INNER INPUT INSENSITIVE INSERT INT INTEGER INTERSECT INTERVAL INTO IS ISOLATION JOIN KEY LANGUAGE LAST LEADING LEFT
    LEVEL LIKE LOCAL LOWER MATCH MAX MIN MINUTE MODULE MONTH NAMES NATIONAL NATURAL NCHAR NEXT NO NOT NULL NULLIF NUMERIC
    OCTET_LENGTH OF ON ONLY OPEN OPTION OR ORDER OUTER OUTPUT OVERLAPS PAD PARTIAL POSITION PRECISION PREPARE PRESERVE
    PRIMARY PRIOR PRIVILEGES PROCEDURE PUBLIC READ REAL REFERENCES RELATIVE RESTRICT REVOKE RIGHT ROLLBACK ROWS SCHEMA
    SCROLL SECOND SECTION SELECT SESSION SESSION_USER SET SIZE SMALLINT SOME SPACE SQL SQLCODE SQLERROR SQLSTATE SUBSTRING
    SUM SYSTEM_USER TABLE TEMPORARY THEN TIME TIMESTAMP TIMEZONE_HOUR TIMEZONE_MINUTE TO TRAILING TRANSACTION TRANSLATE
    TRANSLATION TRIM TRUE UNION UNIQUE UNKNOWN UPDATE UPPER USAGE USER USING VALUE VALUES VARCHAR VARYING VIEW WHEN
    WHENEVER WHERE WITH WORK WRITE YEAR ZONE
"""
RESERVED = frozenset(_WORDS.split())
#: Arguments of each function: the least and the most.
FUNCTIONS = {
    "ABS CEILING DEGREES EXP FLOOR LOG LOG10 RADIANS SQRT ACOS ASIN ATAN COS COT SIN TAN": (1, 1),
    "AREA CENTROID COORD1 COORD2 COORDSYS REGION": (1, 1),
    "MOD POWER ATAN2 CONTAINS INTERSECTS DISTANCE": (2, 2),
    "ROUND TRUNCATE": (1, 2),
    "PI": (0, 0),
    "RAND": (0, 1),
    "POINT": (3, 3),
    "CIRCLE": (4, 4),
    "BOX": (5, 5),
    "POLYGON": (7, 999),
}


class ADQLError(SkysetError, ValueError):
    """A query is not ADQL; one line."""


def check(adql: str) -> None:
    """Raise ADQLError unless the query is ADQL 2.0."""
    # Slices of one query differ in their numbers only: each shape is parsed once.
    _check(re.sub(r"(?<![\w.\"'])\d+\.\d+(?![\w.\"'])", "0.5", adql))


@functools.lru_cache(maxsize=4096)
def _check(adql: str) -> None:
    try:
        with _PARSING:
            _query().parse_string(adql, parse_all=True)
    except pp.ParseBaseException as error:
        found = adql[error.loc : error.loc + 20].split() or ["the end"]
        raise ADQLError(f"Could not parse your query: unexpected {found[0]} (at char {error.loc})") from None


def _words(text: str) -> pp.ParserElement:
    """Keywords in this order."""
    return functools.reduce(lambda one, other: one + other, map(pp.CaselessKeyword, text.split()))


def _one_of(text: str) -> pp.ParserElement:
    return functools.reduce(lambda one, other: one | other, map(pp.CaselessKeyword, text.split()))


def _listed(element: pp.ParserElement) -> pp.ParserElement:
    return pp.DelimitedList(element)


@functools.cache
def _query() -> pp.ParserElement:
    regular = pp.Regex(r"[A-Za-z][A-Za-z0-9_]*").add_condition(lambda found: found[0].upper() not in RESERVED)
    identifier = regular | pp.Regex(r'"(?:[^"]|"")+"')
    name = identifier + ("." + identifier)[0, 3]
    integer = pp.Regex(r"\d+(?![\w.])")
    number = pp.Regex(r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?!\w)")
    text = pp.Regex(r"'(?:[^']|'')*'")

    value, condition, query, tables = pp.Forward(), pp.Forward(), pp.Forward(), pp.Forward()

    arguments = "(" + pp.Optional(_listed(value)) + ")"
    functions = [_called(name, value, *limits) for names, limits in FUNCTIONS.items() for name in names.split()]
    counted = pp.Optional(_one_of("ALL DISTINCT")) + value
    of_set = _words("COUNT") + "(" + "*" + ")" | _one_of("COUNT AVG MAX MIN SUM") + "(" + counted + ")"
    function = of_set | functools.reduce(lambda one, other: one | other, functions) | regular + arguments
    subquery = "(" + query + ")"
    primary = function | name | number | text | "(" + value + ")"
    factor = pp.Optional(pp.one_of("+ -")) + primary
    term = factor + (pp.one_of("* /") + factor)[...]
    value <<= term + (pp.one_of("+ - ||") + term)[...]

    negated = pp.Optional(_words("NOT"))
    predicate = (
        _words("EXISTS") + subquery
        | value + pp.one_of("= <> != <= >= < >") + value
        | value + negated + _words("BETWEEN") + value + _words("AND") + value
        | value + negated + _words("IN") + (subquery | "(" + _listed(value) + ")")
        | value + negated + _words("LIKE") + value
        | name + _words("IS") + negated + _words("NULL")
    )
    boolean = negated + (predicate | "(" + condition + ")")
    both = boolean + (_words("AND") + boolean)[...]
    condition <<= both + (_words("OR") + both)[...]

    alias = pp.Optional(_words("AS")) + identifier
    table = name + pp.Optional(alias) | subquery + alias | "(" + tables + ")"
    kind = pp.Optional(_words("INNER") | _one_of("LEFT RIGHT FULL") + _words("OUTER"))
    given = _words("ON") + condition | _words("USING") + "(" + _listed(identifier) + ")"
    joined = _words("NATURAL") + kind + _words("JOIN") + table | kind + _words("JOIN") + table + given
    tables <<= table + joined[...]

    every = identifier + ("." + identifier)[0, 2] + "." + "*"
    column = every | value + pp.Optional(alias)
    order = (name | integer) + pp.Optional(_one_of("ASC DESC"))
    query <<= (
        _words("SELECT")
        + pp.Optional(_one_of("ALL DISTINCT"))
        + pp.Optional(_words("TOP") + integer)
        + (pp.Literal("*") | _listed(column))
        + _words("FROM")
        + _listed(tables)
        + pp.Optional(_words("WHERE") + condition)
        + pp.Optional(_words("GROUP BY") + _listed(name))
        + pp.Optional(_words("HAVING") + condition)
        + pp.Optional(_words("ORDER BY") + _listed(order))
    )
    return query.ignore(pp.Regex(r"--[^\n]*"))


def _called(function: str, value: pp.ParserElement, least: int, most: int) -> pp.ParserElement:
    """A call of a function with so many arguments."""
    call = pp.CaselessKeyword(function) + "("
    if most == 0:
        return call + ")"
    every = value + ("," + value)[max(least - 1, 0), most - 1]
    return call + (every if least else pp.Optional(every)) + ")"
