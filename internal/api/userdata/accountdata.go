package userdata

import (
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// typeFullyRead is the account data that holds a room's read marker.
const typeFullyRead = "m.fully_read"

// data: spec client-server §GET /user/{userId}/account_data/{type}, and the same
// in a room.
func (m *Module) data(r *api.Request) (any, error) {
	user, in, err := owner(r)
	if err != nil {
		return nil, err
	}
	typ := r.Param("type")
	if in == "" && typ == account.TypePushRules {
		return m.pushRules(r)
	}
	d, err := m.Accounts.Data(r.Context, user, in, typ)
	if err != nil {
		return nil, err
	}
	if d == nil || d.Deleted {
		return nil, merr.NotFoundErr("There is no such account data")
	}
	return d.Content, nil
}

// setData: spec client-server §PUT /user/{userId}/account_data/{type}, and the
// same in a room. An empty content deletes: MSC3391.
func (m *Module) setData(r *api.Request) (any, error) {
	user, in, err := owner(r)
	if err != nil {
		return nil, err
	}
	typ := r.Param("type")
	if err := mayBeSet(typ); err != nil {
		return nil, err
	}
	content, err := object(r)
	if err != nil {
		return nil, err
	}
	cmd := account.NewSetData(user, in, typ, content)
	if string(content) == "{}" {
		cmd = account.NewEmptyData(user, in, typ)
	}
	_, err = m.Router.Do(r.Context, cmd)
	return api.Empty, err
}

// mayBeSet refuses types that the server keeps, or that are too long.
func mayBeSet(typ string) error {
	switch {
	case typ == typeFullyRead || typ == account.TypePushRules:
		return merr.New(http.StatusMethodNotAllowed, merr.BadJSON, "%s cannot be set as account data", typ)
	case len(typ) > maxTypeBytes:
		return merr.InvalidParamErr("A type of account data may have %d bytes", maxTypeBytes)
	}
	return nil
}

// deleteData removes account data, of the user or of a room. MSC3391.
func (m *Module) deleteData(r *api.Request) (any, error) {
	user, in, err := owner(r)
	if err != nil {
		return nil, err
	}
	typ := r.Param("type")
	if err := mayBeSet(typ); err != nil {
		return nil, err
	}
	_, err = m.Router.Do(r.Context, account.NewDeleteData(user, in, typ))
	return api.Empty, err
}

// tags: spec client-server §GET /user/{userId}/rooms/{roomId}/tags.
func (m *Module) tags(r *api.Request) (any, error) {
	user, in, err := owner(r)
	if err != nil {
		return nil, err
	}
	d, err := m.Accounts.Data(r.Context, user, in, account.TypeTag)
	if err != nil {
		return nil, err
	}
	t := account.Tags{}
	if d != nil && json.Unmarshal(d.Content, &t) != nil {
		t = account.Tags{} // m.tag can be written as any account data
	}
	if t.Tags == nil {
		t.Tags = map[string]jsontext.Value{}
	}
	return t, nil
}

// setTag: spec client-server §PUT /user/{userId}/rooms/{roomId}/tags/{tag}.
func (m *Module) setTag(r *api.Request) (any, error) {
	var req struct {
		Order jsontext.Value `json:"order"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if k := req.Order.Kind(); k != 0 && k != '0' {
		return nil, merr.BadJSONErr("order is not a number")
	}
	content := jsontext.Value("{}")
	if len(r.Body) > 0 {
		var err error
		if content, err = compact(jsontext.Value(r.Body)); err != nil {
			return nil, err
		}
	}
	return m.editTag(r, content)
}

// deleteTag: spec client-server §DELETE /user/{userId}/rooms/{roomId}/tags/{tag}.
func (m *Module) deleteTag(r *api.Request) (any, error) { return m.editTag(r, nil) }

func (m *Module) editTag(r *api.Request, content jsontext.Value) (any, error) {
	user, in, err := owner(r)
	if err != nil {
		return nil, err
	}
	tag := r.Param("tag")
	if len(tag) > maxTagBytes {
		return nil, merr.InvalidParamErr("A tag may have %d bytes", maxTagBytes)
	}
	edit := account.EditTag{Tag: tag, Content: content}
	_, err = m.Router.Do(r.Context, account.NewEditData(user, in, account.TypeTag, edit))
	return api.Empty, err
}
