package api

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/pkt-cash/pkt-cloud/node/service"
)

// Problem is the body of a refusal, of the type application/problem+json
// [API-6].
type Problem struct {
	Type   string              `json:"type" doc:"always about:blank"`
	Title  string              `json:"title" doc:"the status in words"`
	Status int                 `json:"status" doc:"the HTTP status"`
	Code   service.Code        `json:"code" doc:"a code of the refusal table"`
	Detail string              `json:"detail" doc:"a sentence that says what to do"`
	Errors []*huma.ErrorDetail `json:"errors,omitempty" doc:"fields that are not acceptable"`
}

// Error returns the sentence.
func (p *Problem) Error() string { return p.Detail }

// GetStatus returns the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType makes JSON problem+json.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// huma makes its own refusals, of malformed input, by this variable.
func init() {
	huma.NewError = func(status int, message string, errs ...error) huma.StatusError {
		code := service.CodeInvalid
		if status >= http.StatusInternalServerError {
			code = service.CodeInternal
		}
		p := &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Code: code, Detail: message}
		for _, err := range errs {
			if d, ok := errors.AsType[*huma.ErrorDetail](err); ok {
				p.Errors = append(p.Errors, d)
			} else if err != nil {
				p.Errors = append(p.Errors, &huma.ErrorDetail{Message: err.Error()})
			}
		}
		return p
	}
}

// problem turns a refusal into its body.
func problem(err error) *Problem {
	code := service.CodeOf(err)
	return &Problem{
		Type: "about:blank", Title: http.StatusText(code.Status()), Status: code.Status(), Code: code, Detail: err.Error(),
	}
}

// reply returns an answer, or the refusal in the form that huma sends.
func reply[T any](v T, err error) (*struct{ Body T }, error) {
	if err != nil {
		return nil, problem(err)
	}
	return &struct{ Body T }{v}, nil
}

func writeProblem(w http.ResponseWriter, err error) {
	p := problem(err)
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p) //nolint:errcheck // the client is gone, or reads it
}
