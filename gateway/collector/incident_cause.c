/* The cause of an incident. */
#include "collector/incident_inside.h"

void
incident_ask(struct incidents *incidents, struct incident *incident)
{
	incident->asking = true;
	json_object_set_new(incident->payload, "cause",
	                    json_pack("{s:s, s:[]}", "verdict", "not enough requests (0)", "rows"));
	incident_answered(incidents, incident);
}
