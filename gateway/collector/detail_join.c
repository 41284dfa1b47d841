/* Detail's times count from the ASGI call, the API's from t0. */
#include "collector/detail_join.h"

static void
move(json_t *object, const char *key, json_int_t by_ns)
{
	json_t *value = json_object_get(object, key);
	if (json_is_integer(value))
		json_integer_set(value, json_integer_value(value) + by_ns);
}

/* Rows that begin with two times. */
static void
move_rows(json_t *rows, json_int_t by_ns)
{
	size_t i;
	json_t *row;
	json_array_foreach(rows, i, row)
	{
		for (size_t k = 0; k < 2; k++) {
			json_t *value = json_array_get(row, k);
			json_integer_set(value, json_integer_value(value) + by_ns);
		}
	}
}

void
detail_add(json_t *exchange, const char *detail)
{
	json_t *profile = json_object_get(exchange, "profile"), *lane;
	json_t *root = detail != NULL ? json_loads(detail, 0, NULL) : NULL;
	json_int_t enter_ns = json_integer_value(json_object_get(profile, "enter_ns"));
	size_t i;
	json_object_set_new(profile, "detail", json_string(root != NULL ? "stored" : "gone"));
	if (root == NULL)
		return;
	json_array_foreach(json_object_get(root, "lanes"), i, lane)
	{
		move(lane, "created_ns", enter_ns);
		move(lane, "ended_ns", enter_ns);
		move_rows(json_object_get(lane, "timeline"), enter_ns);
	}
	move_rows(json_object_get(root, "path"), enter_ns);
	json_object_update(profile, root);
	json_decref(root);
}
