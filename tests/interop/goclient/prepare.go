package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"

	registrationv1 "daybook.example/goclient/gen/registrationv1"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// decisions returns three drafts: a policy, an appointment, and a contract whose title is withheld, with the
// disclosure that opens that title.
func decisions(registerOrigin, register string) ([]*registrationv1.Decision, disclosure, error) {
	drafts := make([]*registrationv1.Decision, 3)
	for i := range drafts {
		id, err := randomUUID()
		if err != nil {
			return nil, disclosure{}, err
		}
		drafts[i] = &registrationv1.Decision{
			RecordId:       id,
			Version:        1,
			Reference:      &registrationv1.Reference{Series: "GO/2026", Number: uint64(i + 1)},
			DecidedAt:      "2026-06-25",
			DecisionMaker:  &registrationv1.Officer{Office: "secretary-of-state", Role: "secretary_of_state"},
			DecisionType:   "policy",
			Channel:        "edrms_workflow",
			Device:         "corporate_issued",
			CaptureMethod:  "edrms_autocapture",
			CapturedAt:     "2026-06-25T16:05Z",
			RecordState:    "present",
			Classification: &registrationv1.Classification{Tier: "OFFICIAL", Sensitive: proto.Bool(false)},
			SourceSystem:   "goclient",
		}
	}
	drafts[0].Title = "Publish the review of \"gowns & masks\""
	drafts[0].Rationale = "Asked for by the Committee.\nNothing in it is commercial."
	drafts[1].Title = "Appoint Châtelaine Associates to the panel"
	drafts[1].DecisionType = "appointment"
	drafts[2].DecisionType = "contract_approval"
	drafts[2].Classification.Sensitive = proto.Bool(true)
	drafts[2].Procurement = &registrationv1.Procurement{
		ContractReference: "GO-2026-0003",
		Method:            "direct",
		Value:             &registrationv1.Money{Amount: "91970816.79", Currency: "GBP"},
	}
	open, err := withhold(registerOrigin, register, drafts[2].RecordId, 1, "title", "Approve purchase of 25 million gowns")
	if err != nil {
		return nil, disclosure{}, err
	}
	drafts[2].Withheld = map[string]string{"title": open.digest}
	return drafts, open.disclosure, nil
}

// randomUUID returns a version 4 UUID, lowercase with hyphens.
func randomUUID() (string, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
}

// checkPrepared compares what the ledger prepared with what was meant, before it is signed
// (docs/integrating.md, step 4): every record byte for byte, and all that is derived from the records.
func checkPrepared(
	prepared *registrationv1.PrepareRecordsResponse, drafts []*registrationv1.Decision, registerOrigin, register string,
) (submission, error) {
	if len(prepared.Records) != len(drafts) {
		return submission{}, fmt.Errorf("%d drafts were prepared as %d records", len(drafts), len(prepared.Records))
	}
	records := make([][]byte, len(drafts))
	for i, each := range prepared.Records {
		meant, err := canonicalRecord(drafts[i], register)
		if err != nil {
			return submission{}, err
		}
		if !bytes.Equal(meant, each.Record) {
			return submission{}, fmt.Errorf("record %d is not what was drafted", i)
		}
		records[i] = each.Record
	}
	ours, err := newSubmission(registerOrigin, records)
	if err != nil {
		return submission{}, err
	}
	if !bytes.Equal(ours.body, prepared.Body) || !bytes.Equal(preAuthentication(ours.body), prepared.BytesToSign) {
		return submission{}, errors.New("the body to sign is not that of these records")
	}
	return ours, nil
}

// canonicalRecord writes a version 1 decision out as canonical JSON. For records that PrepareRecords finds
// no fault with, Go's own encoder gives canonical JSON: it sorts the names of maps, and writes no spaces.
func canonicalRecord(draft *registrationv1.Decision, register string) ([]byte, error) {
	members := membersOf(draft.ProtoReflect())
	members["register"] = register
	members["type"] = "decision.registered/1"
	return canonicalJSON(members)
}

// canonicalJSON encodes maps, lists, strings, booleans and whole numbers.
func canonicalJSON(value any) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// membersOf returns what is set in a draft, under the names of the record's members: they are the same.
func membersOf(message protoreflect.Message) map[string]any {
	members := map[string]any{}
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		members[string(field.Name())] = memberOf(field, value)
		return true
	})
	return members
}

func memberOf(field protoreflect.FieldDescriptor, value protoreflect.Value) any {
	switch {
	case field.IsMap():
		entries := map[string]any{}
		value.Map().Range(func(key protoreflect.MapKey, item protoreflect.Value) bool {
			entries[key.String()] = item.Interface()
			return true
		})
		return entries
	case field.IsList():
		items := make([]any, value.List().Len())
		for i := range items {
			items[i] = singleMember(field, value.List().Get(i))
		}
		return items
	}
	return singleMember(field, value)
}

func singleMember(field protoreflect.FieldDescriptor, value protoreflect.Value) any {
	if field.Message() != nil {
		return membersOf(value.Message())
	}
	return value.Interface()
}
