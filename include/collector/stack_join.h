/* Stacks of a stored exchange: its rows name frames of one list (render.h), each with the one
 * before it, and are given their whole stacks when somebody asks. Any thread. */
#ifndef TAILRACE_COLLECTOR_STACK_JOIN_H
#define TAILRACE_COLLECTOR_STACK_JOIN_H

#include <jansson.h>

/* Puts the stacks into rows and stalls, and takes the list away. Nothing where there is none; a row
 * that names what is not there gets an empty stack. */
void stack_join(json_t *exchange);

#endif
