{{- define "hubbub.labels" -}}
app.kubernetes.io/name: hubbub
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* The name of a key of the configuration in the environment. */}}
{{- define "hubbub.env" -}}
HUBBUB_{{ . | replace "." "_" | upper }}
{{- end }}

{{- define "hubbub.secret" -}}
{{ .Values.existingSecret | default (printf "%s-config" .Release.Name) }}
{{- end }}

{{- define "hubbub.check" -}}
{{- if not (index .Values.config "server.name") }}{{ fail "set config.server\\.name: the part behind the colon in user IDs, which cannot be changed later" }}{{ end }}
{{- if not .Values.postgres }}
{{- if gt (len .Values.fleets) 1 }}{{ fail "more than one fleet needs postgres: true" }}{{ end }}
{{- range $name, $f := .Values.fleets }}
{{- if or $f.autoscaling.enabled (gt (int $f.replicas) 1) }}{{ fail (printf "fleet %s: more than one pod needs postgres: true, as the embedded store is one pod's" $name) }}{{ end }}
{{- end }}
{{- end }}
{{- end }}
