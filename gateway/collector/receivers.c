/* Webhook: the payload as it is. Alertmanager: labels are what an alert is, never how much; what
 * changes stands in annotations. Slack: an incoming webhook's text. */
#include <stdlib.h>
#include <string.h>
#include "collector/receivers.h"

#define ALERTMANAGER_PATH "/api/v2/alerts"

static const char *const type_names[] = {"webhook", "alertmanager", "slack", "log"};

const char *
receivers_type_name(enum config_receiver_type type)
{
	return type_names[type];
}

static const char *
text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));
	return text != NULL ? text : "";
}

static json_t *
alertmanager_alerts(const json_t *payload)
{
	const json_t *rule = json_object_get(payload, "rule");
	const char *link = text_of(json_object_get(payload, "links"), "dashboard");
	const char *ended = text_of(payload, "ended");
	json_t *labels = json_pack("{s:s, s:s, s:s, s:s}", "alertname",
	                           json_is_object(rule) ? "TailraceRule" : "TailraceRegression",
	                           "route", text_of(payload, "route"), "incident",
	                           text_of(payload, "id"), "severity", "warning");
	if (json_is_object(rule))
		json_object_set_new(labels, "rule", json_string(text_of(rule, "name")));
	json_t *alert = json_pack("{s:o, s:{s:s, s:s}, s:s}", "labels", labels, "annotations",
	                          "summary", text_of(payload, "title"), "description",
	                          text_of(payload, "text"), "startsAt", text_of(payload, "fired"));
	if (strcmp(text_of(payload, "status"), "firing") != 0 && ended[0] != '\0')
		json_object_set_new(alert, "endsAt", json_string(ended));
	if (link[0] != '\0')
		json_object_set_new(alert, "generatorURL", json_string(link));
	return json_pack("[o]", alert);
}

/* The three characters that mean something in Slack's texts. */
static void
put_slack(struct text *out, const char *text)
{
	for (; *text != '\0'; text++) {
		if (*text == '&')
			text_puts(out, "&amp;");
		else if (*text == '<')
			text_puts(out, "&lt;");
		else if (*text == '>')
			text_puts(out, "&gt;");
		else
			text_add(out, text, 1);
	}
}

static json_t *
slack_message(const json_t *payload)
{
	const char *link = text_of(json_object_get(payload, "links"), "dashboard");
	struct text text = {0};
	text_puts(&text, "*");
	put_slack(&text, text_of(payload, "title"));
	text_puts(&text, "*\n");
	put_slack(&text, text_of(payload, "text"));
	if (link[0] != '\0')
		text_printf(&text, "\n<%s|Look at it>", link);
	else
		text_printf(&text, "\nMore: `tailrace incidents %s`", text_of(payload, "id"));
	json_t *message = json_pack("{s:o}", "text", json_stringn(text.data, text.length));
	text_free(&text);
	return message;
}

void
receivers_body(enum config_receiver_type type, const json_t *payload, struct text *out)
{
	json_t *made = NULL;
	if (type == CONFIG_RECEIVER_ALERTMANAGER)
		made = alertmanager_alerts(payload);
	else if (type == CONFIG_RECEIVER_SLACK)
		made = slack_message(payload);
	char *body = json_dumps(made != NULL ? made : payload, JSON_COMPACT);
	if (body == NULL)
		out->failed = true;
	else
		text_puts(out, body);
	free(body);
	json_decref(made);
}

void
receivers_url(enum config_receiver_type type, const char *url, struct text *out)
{
	size_t length = strlen(url), path = strlen(ALERTMANAGER_PATH);
	if (type != CONFIG_RECEIVER_ALERTMANAGER ||
	    (length >= path && strcmp(url + length - path, ALERTMANAGER_PATH) == 0)) {
		text_puts(out, url);
		return;
	}
	while (length > 0 && url[length - 1] == '/')
		length--;
	text_add(out, url, length);
	text_puts(out, ALERTMANAGER_PATH);
}
