"""The numbers by which the machine of `registers` knows what to do; see there."""

WIDTH = 6
DESCRIPTION = 5
PLAIN, DECIMAL, BOOLEAN, TEXT, TRUTH = range(5)

(
    LOAD,
    EQUAL,
    LESS,
    EQUAL_DOUBLE,
    LESS_DOUBLE,
    TEXT_TO_LITERAL,
    TEXT_TO_COLUMN,
    IN,
    IN_TEXT,
    AND,
    OR,
    NOT,
    IS_NULL,
    IS_TRUE,
    IS_FALSE,
    COALESCE,
    CHOOSE,
    ADD_DOUBLE,
    SUB_DOUBLE,
    MUL_DOUBLE,
    DIV_DOUBLE,
    NEGATE_DOUBLE,
    ADD,
    SUB,
    MUL,
    TO_DOUBLE,
    NOT_ZERO,
    NOT_ZERO_DOUBLE,
    SCALE,
    DESCALE,
    SECONDS,
    CLOCK,
    CALENDAR,
) = range(33)

# The range in which a sum, a difference or a product must lie.
ANY, INT64, INT32 = range(3)
# Parts of a date.
YEAR, MONTH, DAY, QUARTER, DOY, DOW, ISODOW, WEEK, ISOYEAR, DECADE, CENTURY = range(11)
# How texts compare: whether less, equal, greater is meant.
IF_LESS, IF_EQUAL, IF_GREATER = 1, 2, 4
