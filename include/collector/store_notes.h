/* What alerting keeps in the store's file: the detector's state, incidents, deploys, the outbox, and
 * small facts by name; of incidents and deploys the newest 1000. Written by the store's thread like everything else; read once, at start. */
#ifndef TAILRACE_COLLECTOR_STORE_NOTES_H
#define TAILRACE_COLLECTOR_STORE_NOTES_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum store_note_kind {
	STORE_NOTE_FACT,     /* key: name; bytes: text */
	STORE_NOTE_DETECTOR, /* key: route; number: enum detector_part; bytes */
	STORE_NOTE_INCIDENT, /* key: ID; number: since, unix s; bytes: JSON */
	STORE_NOTE_DEPLOY,   /* key: version; number: at, unix s */
	STORE_NOTE_OUTBOX,   /* key: receiver and idempotency key; number: created, unix s; bytes */
	STORE_NOTE_OUTBOX_DONE, /* key: likewise; delivered or given up */
	STORE_NOTE_KINDS
};

struct store_note {
	enum store_note_kind kind;
	char *key; /* owned */
	int64_t number;
	void *bytes; /* owned; null where the kind has none */
	size_t size;
};
void store_note_clear(struct store_note *note);

struct store_notes {
	sqlite3_stmt *statements[STORE_NOTE_KINDS]; /* prepared at first use */
};

/* Makes the tables where they are missing. Returns SQLITE_OK or SQLite's error. */
int store_notes_schema(sqlite3 *db);

/* Writes one within a transaction. Returns SQLITE_OK or SQLite's error. */
int store_notes_write(struct store_notes *notes, sqlite3 *db, const struct store_note *note);
void store_notes_close(struct store_notes *notes);

/* Reads all notes of a kind from the file at `path`, oldest first; `each` borrows the note. Does
 * nothing where there is no such file or no such table. Loop's thread, before the loop runs. */
void store_notes_load(const char *path, enum store_note_kind kind,
                      void (*each)(void *arg, const struct store_note *note), void *arg);

#endif
