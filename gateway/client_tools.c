/* Asking, printing. */
#include "client_tools.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"

void
client_complain(const struct control_answer *answer)
{
	json_t *root = json_loadb(answer->body, answer->length, 0, NULL);
	const char *text =
	    json_string_value(json_object_get(json_object_get(root, "error"), "message"));

	fprintf(stderr, "tailrace: the gateway answers %d%s%s\n", answer->status,
	        text == NULL ? "" : ": ", text == NULL ? "" : text);
	json_decref(root);
}

int
client_ask(const struct client_options *options, const char *path, struct control_answer *ret)
{
	char error[512];

	if (control_get(options->control, path, ret, error, sizeof(error)) == 0)
		return ret->status;
	fprintf(stderr, "tailrace: %s\n", error);
	return -1;
}

json_t *
client_ask_object(const struct client_options *options, const char *path, int *ret_status)
{
	struct control_answer answer = {0};
	json_t *root = NULL;
	int status = client_ask(options, path, &answer);

	*ret_status = EXIT_FAILURE;
	if (status == 200 && options->json) {
		fwrite(answer.body, 1, answer.length, stdout);
		fputc('\n', stdout);
		*ret_status = EXIT_SUCCESS;
	} else if (status == 200) {
		root = json_loadb(answer.body, answer.length, JSON_REJECT_DUPLICATES, NULL);
		if (!json_is_object(root)) {
			fprintf(stderr, "tailrace: %s did not answer with a JSON object\n", path);
			json_decref(root);
			root = NULL;
		}
	} else if (status != -1) {
		client_complain(&answer);
	}
	control_answer_free(&answer);
	return root;
}

json_t *
client_post(const struct client_options *options, const char *path, json_t *body, int wanted,
            int *ret_status)
{
	struct control_answer answer = {0};
	char error[512], *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
	json_t *root = NULL;

	*ret_status = text != NULL ? EXIT_FAILURE : EXIT_USAGE;
	json_decref(body);
	if (text == NULL)
		fprintf(stderr, "tailrace: what was given is no UTF-8\n");
	else if (control_post(options->control, path, text, &answer, error, sizeof(error)) != 0)
		fprintf(stderr, "tailrace: %s\n", error);
	else if (answer.status != wanted)
		client_complain(&answer);
	else if ((root = json_loadb(answer.body, answer.length, 0, NULL)) == NULL)
		fprintf(stderr, "tailrace: %s did not answer with JSON\n", path);
	free(text);
	control_answer_free(&answer);
	return root;
}

int
client_print_json(json_t *root)
{
	int status = json_dumpf(root, stdout, JSON_COMPACT);

	fputc('\n', stdout);
	json_decref(root);
	return status == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

void
client_append_encoded(char *path, size_t size, const char *text)
{
	size_t n = strlen(path);

	for (; *text != '\0' && n + 4 < size; text++) {
		unsigned char c = (unsigned char)*text;

		if (isalnum(c) || strchr("-._~", c) != NULL)
			path[n++] = (char)c;
		else
			n += (size_t)snprintf(path + n, size - n, "%%%02X", c);
		path[n] = '\0';
	}
}

const char *
client_text(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text == NULL ? "-" : text;
}

uint64_t
client_number(const json_t *object, const char *key)
{
	json_int_t value = json_integer_value(json_object_get(object, key));

	return value < 0 ? 0 : (uint64_t)value;
}

double
client_real(const json_t *object, const char *key)
{
	return json_number_value(json_object_get(object, key));
}

bool
client_take_hex(const char *text, size_t digits, char *ret)
{
	if (strlen(text) != digits || strspn(text, "0123456789abcdefABCDEF") != digits)
		return false;
	for (size_t i = 0; i <= digits; i++)
		ret[i] = (char)tolower((unsigned char)text[i]);
	return true;
}

uint64_t
client_seconds(const char *text)
{
	static const char units[] = "smhd";
	static const uint64_t scale[] = {1, 60, 3600, 86400};
	char *end;
	uint64_t value = *text >= '0' && *text <= '9' ? strtoull(text, &end, 10) : 0;
	const char *unit;

	if (value == 0 || value > 1u << 31)
		return 0;
	if (*end == '\0')
		return value;
	unit = strchr(units, *end);
	return unit != NULL && end[1] == '\0' ? value * scale[unit - units] : 0;
}

void
client_put_duration(struct term_line *line, unsigned column, const json_t *value)
{
	char text[TERM_DURATION_SIZE] = "-";

	if (json_is_integer(value))
		term_duration(line->term, (uint64_t)json_integer_value(value), text);
	term_line_right(line, TERM_PLAIN, column, text);
}

void
client_delta_text(const struct term *term, double delta_ns, char *buf, size_t size)
{
	char duration[TERM_DURATION_SIZE];

	snprintf(buf, size, "%s%s", delta_ns < 0 ? "-" : "+",
	         term_duration(term, (uint64_t)llround(fabs(delta_ns)), duration));
}

void
client_put_row_label(struct term_line *line, unsigned column, const json_t *row)
{
	const char *cause = json_string_value(json_object_get(row, "cause"));
	const char *frame = json_string_value(json_object_get(row, "frame"));
	char kind[64];

	snprintf(kind, sizeof(kind), "%s%s%s", client_text(row, "kind"), cause != NULL ? " " : "",
	         cause != NULL ? cause : "");
	if (line->columns < column)
		term_line_text(line, TERM_PLAIN, column - line->columns, kind);
	if (frame == NULL || line->columns + 2 >= column)
		return;
	term_line_pad(line, line->columns + 2);
	term_line_text(line, TERM_BOLD, column - line->columns, frame);
}

void
client_put_heading(const struct term *term, unsigned first, const char *const *names,
                   const unsigned *columns, size_t count)
{
	struct term_line line;

	term_line_begin(&line, term);
	term_line_text(&line, TERM_DIM, first, names[0]);
	for (size_t i = 1; i < count; i++)
		term_line_right(&line, TERM_DIM, columns[i], names[i]);
	term_line_end(&line);
}
