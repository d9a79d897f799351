package account

import (
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// TypeTag is the type of the room account data that holds a room's tags.
const TypeTag = "m.tag"

// Tags is the content of m.tag. spec: client-server §Room Tagging.
type Tags struct {
	Tags map[string]jsontext.Value `json:"tags"`
}

// EditTag sets or, with a nil Content, removes one tag of a room.
type EditTag struct {
	Tag     string
	Content jsontext.Value
}

var _ Edit = EditTag{}

// Edited implements Edit.
func (e EditTag) Edited(present jsontext.Value) (jsontext.Value, error) {
	t := Tags{}
	if present != nil {
		if err := json.Unmarshal(present, &t); err != nil {
			// A client may have written anything there; tags begin anew.
			t = Tags{}
		}
	}
	if t.Tags == nil {
		t.Tags = make(map[string]jsontext.Value)
	}
	if e.Content == nil {
		delete(t.Tags, e.Tag)
	} else {
		t.Tags[e.Tag] = e.Content
	}
	b, err := json.Marshal(&t, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("encode tags: %w", err)
	}
	return b, nil
}
